"""What estimators ask of every policy: relaxations of the same sample, differentiable; a score that is a gradient."""

import functools

import pytest
import torch

from archgrad import Autoregressive, Factorised
from archgrad.policies import Transformer
from archgrad.policies.sequence import hard
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.testing import conditional_space, plain_space
from tests.policies.test_policies import scrambled

POLICIES = {
    "factorised": Factorised,
    "lstm": functools.partial(Autoregressive, hidden=5),
    "transformer": functools.partial(Transformer, hidden=6, layers=2),
}
SPACES = {
    "plain": plain_space(3, 3),
    "ragged": plain_space(2, 3, 1),
    "one": plain_space(4),
    "conditional": conditional_space(),
    "two parents": Decisions(
        [
            Decision("a", ("x", "y", "z")),
            Decision("b", ("x", "y"), when=((0, 1), (0, 2))),
            Decision("c", ("x", "y", "z"), when=((0, 0), (1, 1))),
        ]
    ),
}


def on_every(test):
    """A test of every policy on every space."""
    test = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)(test)
    return pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)(test)


def made(make, space, runs=()):
    return scrambled(make(space, runs=runs).double(), seed=3)


def uniforms(policy, n, seed=1):
    shape = (*policy.runs, n, policy.space.D, policy.space.K)
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softened(log_p, perturbation):
    return ((log_p + perturbation) / 0.7).softmax(-1)


@on_every
@pytest.mark.parametrize("runs", [(), (3,)])
def test_a_hard_row_is_the_sample_of_the_same_noise(make, space, runs):
    policy = made(make, space, runs)
    noise = uniforms(policy, 40)
    h = policy.sample(40, noise=noise)
    assert torch.equal(policy.relax(noise, hard), h)
    onehot = torch.nn.functional.one_hot
    assert torch.equal(policy.relax(noise, lambda p, g: onehot((p + g).argmax(-1), space.K).double()), h)
    assert torch.equal(space.canonical(h), h)


@on_every
def test_the_sample_is_the_argmax_of_its_own_conditionals_and_noise(make, space):
    """Step by step, whatever is kept between steps, against the one pass over the finished sample."""
    policy = made(make, space)
    noise = uniforms(policy, 40)
    h = policy.sample(40, noise=noise)
    best = (policy.conditionals(h) - torch.log(-torch.log(noise))).argmax(-1)
    on = space.active(h) > 0
    assert torch.equal(best[on], h.argmax(-1)[on])


@on_every
@pytest.mark.parametrize("runs", [(), (2,)])
def test_rows_are_told_normalised_log_probabilities_of_the_prefix(make, space, runs):
    policy, seen = made(make, space, runs), []
    noise = uniforms(policy, 6)

    def row(log_p, perturbation):
        seen.append(log_p.detach())
        return softened(log_p, perturbation)

    h = policy.relax(noise, row).detach()
    if policy.independent:
        assert torch.allclose(seen[0], policy.conditionals(h), atol=1e-12)
    else:  # the relaxed prefix is fed forward
        assert torch.allclose(torch.stack(seen, -2), policy.conditionals(h), atol=1e-12)


@on_every
def test_relaxed_rows_are_on_the_simplex_and_blend_to_canonical(make, space):
    policy = made(make, space)
    h = policy.relax(uniforms(policy, 20), softened)
    assert torch.allclose(h.sum(-1), torch.ones((), dtype=torch.float64))
    assert (h >= 0).all()
    assert (h[..., ~space.mask] == 0).all()
    vertices = torch.nn.functional.one_hot(
        torch.cartesian_prod(*[torch.arange(len(d.options)) for d in space.decisions]).reshape(-1, space.D), space.K
    ).double()
    assert torch.equal(space.blend(vertices), space.canonical(vertices))


@on_every
def test_a_relaxations_gradient_is_that_of_finite_differences(make, space):
    policy = made(make, space)
    noise, weight = uniforms(policy, 2), torch.randn(space.D, space.K, dtype=torch.float64)

    def f(*parameters):
        moved = POLICIES_BY_TYPE[type(policy)](space).double()
        moved._parameters = dict(zip(dict(policy.named_parameters()), parameters, strict=True))
        return ((moved.relax(noise, softened) * weight).sum((-2, -1)) ** 2).sum()

    parameters = [p.detach().clone().requires_grad_() for p in policy.parameters()]
    torch.manual_seed(0)  # fast mode projects on random directions
    assert torch.autograd.gradcheck(f, parameters, fast_mode=True, atol=1e-6)


POLICIES_BY_TYPE = {Factorised: Factorised, Autoregressive: POLICIES["lstm"], Transformer: POLICIES["transformer"]}


@on_every
@pytest.mark.parametrize("runs", [(), (3,), (2, 2)])
def test_the_score_is_the_gradient_of_the_log_probability(make, space, runs):
    policy = made(make, space, runs)
    h = policy.sample(5, noise=uniforms(policy, 5))
    weights = torch.randn(*runs, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = torch.autograd.grad((weights * policy.log_prob(h)).sum(), list(policy.parameters()))
    both, entropy = policy.score_and_entropy(h, weights)
    assert torch.allclose(entropy, policy.entropy(h), atol=1e-12)
    assert not entropy.requires_grad
    for got in (policy.score(h, weights), both):
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape
            assert not a.requires_grad
            assert torch.allclose(a, b, atol=1e-12)


@on_every
def test_three_runs_relax_and_score_as_three_single_runs(make, space):
    many = made(make, space, (3,))
    noise = uniforms(many, 4)
    h, relaxed = many.sample(4, noise=noise), many.relax(noise, softened)
    scores = many.score(h, h.new_ones(3, 4))
    for r in range(3):
        one = make(space).double()
        with torch.no_grad():
            for p, q in zip(one.parameters(), many.parameters(), strict=True):
                p.copy_(q[r])
        assert torch.allclose(one.relax(noise[r], softened), relaxed[r], atol=1e-12)
        for a, b in zip(one.score(h[r], h.new_ones(4)), scores, strict=True):
            assert torch.allclose(a, b[r], atol=1e-12)
