"""What every surrogate promises: multilinear, so exact under independent decisions; a past of any size; a state."""

import pytest
import torch

from archgrad import Factorised
from archgrad.surrogates import GaussianProcess, Linear, Pairwise
from archgrad.testing import exact_gradient, plain_space, relative_error
from tests.estimators.test_score_function import curved
from tests.policies.test_policies import scrambled

SPACE = plain_space(2, 3, 3)
MAKE = [Linear, Pairwise, lambda: GaussianProcess(SPACE, steps=20)]


def fitted(make, n=14, seed=0):
    h = SPACE.uniform(n, torch.Generator().manual_seed(seed)).double()
    surrogate = make()
    surrogate.fit(h, curved(h))
    return surrogate


@pytest.mark.parametrize("make", MAKE)
def test_at_the_marginals_it_is_its_expectation(make):
    """Against the sum over the space, with its gradient; a policy with runs, each of its own alpha."""
    surrogate = fitted(make)
    every = SPACE.enumerate().double()
    policy = scrambled(Factorised(SPACE, runs=(2,)).double())
    p = policy.log_prob(every.expand(2, *every.shape)).exp()
    want = (p * surrogate.mean(every)).sum(-1)
    got = surrogate.mean(policy.marginals().unsqueeze(-3)).squeeze(-1)
    assert torch.allclose(got, want, atol=1e-12, rtol=0)
    a, b = (torch.autograd.grad(x.sum(), policy.alpha, retain_graph=True)[0] for x in (got, want))
    assert torch.allclose(a, b, atol=1e-12, rtol=0)
    assert a.abs().max() > 0.01
    one = scrambled(Factorised(SPACE).double())
    alone = torch.autograd.grad(surrogate.mean(one.marginals().unsqueeze(-3)).sum(), one.alpha)
    assert relative_error(alone, exact_gradient(one, surrogate.mean)) < 1e-12


@pytest.mark.parametrize("make", MAKE)
def test_leading_dimensions_are_rows(make):
    surrogate = fitted(make)
    h = SPACE.uniform(6, torch.Generator().manual_seed(1)).double()
    assert torch.allclose(surrogate.mean(h).reshape(2, 3), surrogate.mean(h.reshape(2, 3, *h.shape[1:])), atol=1e-12)
    assert surrogate.mean(h.float()).dtype == torch.float64


@pytest.mark.parametrize("make", MAKE)
def test_knows_nothing_before_it_has_seen_something(make):
    assert (make().mean(SPACE.enumerate()) == 0).all()


@pytest.mark.parametrize("make", MAKE)
def test_a_past_of_one_and_a_flat_one_are_constants(make):
    every = SPACE.enumerate().double()
    for h in (every[:1], every[:5], every[[0, 0, 0]]):
        surrogate = make()
        surrogate.fit(h, torch.full((len(h),), 7.0).double())
        assert torch.allclose(surrogate.mean(every), torch.tensor(7.0).double())


@pytest.mark.parametrize("make", MAKE)
def test_units_do_not_matter(make):
    h = SPACE.uniform(14, torch.Generator().manual_seed(0)).double()
    scaled = make()
    scaled.fit(h, 1000 * curved(h) - 3)
    every = SPACE.enumerate().double()
    assert torch.allclose(scaled.mean(every), 1000 * fitted(make).mean(every) - 3, rtol=1e-6)


@pytest.mark.parametrize("make", MAKE)
def test_the_state_is_the_whole_of_it(make):
    surrogate = fitted(make)
    restored = make()
    restored.load_state_dict(surrogate.state_dict())
    every = SPACE.enumerate().double()
    assert torch.equal(restored.mean(every), surrogate.mean(every))
    for s in (surrogate, restored):
        s.fit(every, curved(every))
    assert torch.equal(restored.mean(every), surrogate.mean(every))


@pytest.mark.parametrize("make", MAKE)
def test_noisy_repeats_are_averaged(make):
    """Forty evaluations each of all architectures with noise of deviation 2: nearer to f than their own spread."""
    every = SPACE.enumerate().double()
    h = every.repeat(40, 1, 1)
    noise = 2 * torch.randn(len(h), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = SPACE.D * (every[..., 0] * torch.tensor([1.0, 2.0, -1.0]).double()).sum(-1)
    surrogate = make()
    surrogate.fit(h, f.repeat(40) + noise)
    assert (surrogate.mean(every) - f).square().mean() < 4 / 40
