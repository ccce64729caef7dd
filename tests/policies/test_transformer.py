"""The transformer reads backwards only, whether in one pass or token by token."""

import pytest
import torch

from archgrad import UsageError
from archgrad.policies import Transformer
from archgrad.testing import plain_space
from tests.policies.test_policies import scrambled


def made(**arguments):
    return scrambled(Transformer(plain_space(3, 2, 3, 2), hidden=8, **arguments).double())


@pytest.mark.parametrize("layers", [1, 2])
def test_later_choices_do_not_change_earlier_conditionals(layers):
    policy = made(layers=layers)
    h = policy.space.enumerate().double()
    log_p = policy.conditionals(h)
    for d in range(policy.space.D):
        other = h.clone()
        other[:, d:] = h.flip(0)[:, d:]  # the decision itself and all after it
        changed = policy.conditionals(other)
        assert torch.equal(changed[:, : d + 1], log_p[:, : d + 1])
        if d + 1 < policy.space.D:  # and the next one does depend on it, or the test would pass for a deaf policy
            assert not torch.allclose(changed[:, d + 1], log_p[:, d + 1], atol=1e-3)


def test_every_choice_of_the_prefix_is_attended_to():
    policy = made()
    h = policy.space.enumerate().double()[:5].requires_grad_()
    (slope,) = torch.autograd.grad(policy.conditionals(h)[:, -1, 0].sum(), h)
    seen = slope.abs().amax((0, 2))
    assert (seen[:-1] > 1e-4).all()
    assert seen[-1] == 0


def test_its_layers_are_pytorchs_own():
    """The states of one pass against ``nn.TransformerEncoderLayer`` with the same weights."""
    policy, (H, D) = made(layers=2, heads=4), (8, 4)
    x = torch.randn(5, D, H, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = x
    with torch.no_grad():
        for i in range(2):
            layer = torch.nn.TransformerEncoderLayer(
                H, 4, 4 * H, dropout=0, activation="gelu", norm_first=True, batch_first=True, dtype=torch.float64
            )
            layer.self_attn.in_proj_weight.copy_(policy.attention[i].mT)
            layer.self_attn.out_proj.weight.copy_(policy.out[i].mT)
            layer.self_attn.in_proj_bias.zero_()
            layer.self_attn.out_proj.bias.zero_()
            for linear, weight, bias in (
                (layer.linear1, policy.up[i], policy.up_bias[i]),
                (layer.linear2, policy.down[i], policy.down_bias[i]),
            ):
                linear.weight.copy_(weight.mT)
                linear.bias.copy_(bias[0])
            for norm, which in ((layer.norm1, 2 * i), (layer.norm2, 2 * i + 1)):
                norm.weight.copy_(policy.gain[which, 0])
                norm.bias.copy_(policy.shift[which, 0])
            future = torch.ones(D, D, dtype=torch.bool).triu(1)
            want = layer.train()(want, src_mask=future)
        want = torch.nn.functional.layer_norm(want, (H,), policy.gain[4, 0], policy.shift[4, 0])
        assert torch.allclose(policy._read(x, []), want, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 2])
def test_tokens_one_by_one_are_the_one_pass(layers):
    policy = made(layers=layers, heads=4)
    h = policy.space.enumerate().double()
    step = policy._step(len(h))
    rows = list(h.unbind(-2))
    logits = [step(rows[:d]) for d in range(policy.space.D)]
    assert torch.allclose(torch.stack(logits, -2).log_softmax(-1), policy.conditionals(h), atol=1e-12)


def test_it_is_right_to_the_third_derivative():
    """REBAR differentiates a Hessian-like term once more; PyTorch's layer norm is silently wrong there."""
    policy = made(layers=1)
    h = policy.space.enumerate().double()[:2]

    def slope(x):
        mixed = x.softmax(-1)
        return torch.autograd.grad(policy.log_prob(mixed).sum(), x, create_graph=True)[0]

    x = (2 * h + 0.3).requires_grad_()
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(slope, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(slope, x, fast_mode=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"layers": 0}, "at least 1, got 0"), ({"heads": 3}, "multiple of heads"), ({"heads": 0}, "multiple of heads")],
)
def test_impossible_sizes_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        made(**arguments)
