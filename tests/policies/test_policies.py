"""Policies are distributions, sample what they say, and step many runs at once."""

import pytest
import torch

from archgrad import Autoregressive, Factorised, UsageError
from archgrad.policies import Transformer, near
from archgrad.testing import check_policy, conditional_space, plain_space

POLICIES = [Factorised, Autoregressive, Transformer]


def scrambled(policy, seed=0, scale=0.7):
    """Away from uniform, or a wrong factor would hide in the symmetry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            p += scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return policy


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("space", [plain_space(2, 3, 1), plain_space(3, 2, 2), conditional_space()])
def test_is_a_distribution_and_samples_it(make, space):
    check_policy(make(space))
    check_policy(scrambled(make(space)))


@pytest.mark.parametrize("make", POLICIES)
def test_starts_uniform(make):
    space = plain_space(4, 2, 3)
    log_p = make(space).conditionals(space.enumerate())
    for d, decision in enumerate(space.decisions):
        k = len(decision.options)
        assert torch.allclose(log_p[:, d, :k].exp(), torch.full((space.size, k), 1 / k))
        assert (log_p[:, d, k:] == -torch.inf).all()


@pytest.mark.parametrize("make", POLICIES)
def test_three_runs_at_once_are_three_single_runs(make):
    space = conditional_space()
    many = scrambled(make(space, runs=(3,)).double())
    noise = torch.rand(3, 5, space.D, space.K, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = many.sample(5, noise=noise)
    together = torch.autograd.grad(many.log_prob(h).sum(), list(many.parameters()))
    for r in range(3):
        one = make(space).double()
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        assert torch.equal(one.sample(5, noise=noise[r]), h[r])
        assert torch.allclose(one.log_prob(h[r]), many.log_prob(h)[r], atol=1e-12)
        assert torch.allclose(one.entropy(h[r]), many.entropy(h)[r], atol=1e-12)
        assert torch.equal(one.mode(), many.mode()[r])
        alone = torch.autograd.grad(one.log_prob(h[r]).sum(), list(one.parameters()))
        for a, b in zip(alone, together, strict=True):
            assert torch.allclose(a, b[r], atol=1e-12)


@pytest.mark.parametrize("make", POLICIES)
def test_entropy_averages_to_the_entropy_of_the_distribution(make):
    policy = scrambled(make(conditional_space()).double())
    h = policy.space.enumerate().double()
    p = policy.log_prob(h).exp()
    assert torch.allclose((p * policy.entropy(h)).sum(), -(p * p.log()).sum(), atol=1e-10)


def test_sequences_can_hold_what_factors_cannot():
    """Fit p to two architectures that differ everywhere: a factorised policy would mix their halves."""
    space = plain_space(2, 2, 2)
    target = space.encode([("a", "a", "a"), ("b", "b", "b")])
    fits = {}
    for make in POLICIES:
        policy = scrambled(make(space), scale=0.1)
        optimizer = torch.optim.Adam(policy.parameters(), 0.05)
        for _ in range(200):
            optimizer.zero_grad()
            (-policy.log_prob(target).mean()).backward()
            optimizer.step()
        fits[make] = float(policy.log_prob(target).exp().sum().detach())
    assert fits[Factorised] == pytest.approx(0.25, abs=0.01)
    assert fits[Autoregressive] > 0.95
    assert fits[Transformer] > 0.95


def test_the_mode_of_a_decided_policy_is_its_only_sample():
    space = conditional_space()
    policy = Factorised(space)
    with torch.no_grad():
        policy.alpha.copy_(100 * space.encode([("b", "a", "b", "c")])[0])
    assert space.decode(policy.mode()) == [("b", "a", "b", "c")]
    assert set(space.decode(policy.sample(50, torch.Generator().manual_seed(0)))) == {("b", "a", "b", "c")}


def test_extreme_noise_gives_finite_perturbations():
    from archgrad.policies.sequence import gumbel

    for dtype in (torch.float32, torch.float64):
        assert torch.isfinite(gumbel(torch.tensor([0.0, 0.5, 1.0], dtype=dtype))).all()


@pytest.mark.parametrize("make", POLICIES)
def test_a_prior_near_an_architecture_is_what_it_says(make):
    space = conditional_space()
    default = ("b", "c", "a", "b")
    policy = make(space, prior=near(space, default, 0.9))
    log_p = policy.conditionals(space.encode([default]))[0]
    for d, decision in enumerate(space.decisions):
        p = log_p[d].exp().tolist()
        chosen = decision.options.index(default[d])
        others = [q for k, q in enumerate(p) if k != chosen and k < len(decision.options)]
        assert p[chosen] == pytest.approx(0.9, abs=1e-5)
        assert others == pytest.approx([0.1 / len(others)] * len(others), abs=1e-5)
    check_policy(policy)
    with pytest.raises(UsageError, match="between 0 and 1, got 1"):
        near(space, default, 1)
