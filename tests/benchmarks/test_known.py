"""Known problems: their exact expectations against plain sums over every architecture."""

import numpy as np
import pytest
import torch

from archgrad import Autoregressive, Factorised, UsageError
from archgrad.benchmarks import enumerated, nk_chain
from archgrad.benchmarks.nk_chain import tables
from archgrad.policies.replicated import replicated
from archgrad.testing import conditional_space, plain_space, quadratic, toy
from tests.policies.test_policies import scrambled


def by_sum(problem, policy):
    h = problem.space.enumerate().double()
    return (policy.log_prob(h).exp() * problem.f(h)).sum()


def wavy(h):
    return torch.sin(3 * (h * torch.arange(h.shape[-1]).to(h)).sum(-1)).prod(-1)


@pytest.mark.parametrize("make", [Factorised, lambda space: Autoregressive(space, hidden=4)])
@pytest.mark.parametrize(
    "problem",
    [
        toy(),
        quadratic(2, 4, 3),
        enumerated("ragged", plain_space(2, 1, 4), wavy),
        enumerated("conditional", conditional_space(), wavy),
    ],
    ids=lambda p: p.name,
)
def test_an_enumerated_expectation_is_the_sum_over_the_space(problem, make):
    policy = scrambled(make(problem.space).double())
    got, want = problem.expectation(policy), by_sum(problem, policy)
    assert torch.allclose(got, want, atol=1e-12)
    parameters = list(policy.parameters())
    wanted = torch.autograd.grad(want, parameters)
    for a, b in zip(problem.gradient(policy), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    values = problem.f(problem.space.enumerate().double())
    assert problem.optimum == float(values.min())


def test_expectations_of_many_runs_at_once():
    for problem in (toy(), nk_chain(5, 3)):
        many = scrambled(replicated(Factorised(problem.space).double(), 3))
        together = problem.expectation(many)
        assert together.shape == (3,)
        for r in range(3):
            one = Factorised(problem.space).double()
            one.alpha.data.copy_(many.alpha[r])
            assert torch.allclose(problem.expectation(one), together[r], atol=1e-12)


def test_a_small_chain_is_what_enumeration_says():
    problem = nk_chain(5, 3, seed=4)
    policy = scrambled(Factorised(problem.space).double())
    assert torch.allclose(problem.expectation(policy), by_sum(problem, policy), atol=1e-12)
    values = problem.f(problem.space.enumerate().double())
    assert float(values.mean()) == pytest.approx(0, abs=1e-12)
    assert float(values.var(correction=0)) == pytest.approx(1)
    assert problem.optimum == pytest.approx(float(values.min()))


def test_a_chain_is_the_sum_of_its_tables_term_by_term():
    problem, (u, w, t) = nk_chain(5, 3, seed=4), tables(5, 3, 4)
    k = [2, 0, 1, 1, 2]
    total = sum(u[i, k[i]] for i in range(5))
    total += sum(w[i, k[i], k[i + 1]] for i in range(4))
    total += sum(t[i, k[i], k[i + 1], k[i + 2]] for i in range(3))
    h = torch.nn.functional.one_hot(torch.tensor([k]), 3).double()
    assert float(problem.f(h)) == pytest.approx(-float(total))


def test_a_chain_has_the_published_shares_draw_order_and_optima():
    u, w, t = tables(20, 7, 5000)
    for table, share in ((u, 0.45), (w, 0.35), (t, 0.20)):
        axes = range(1, table.dim())
        assert float(table.square().mean(tuple(axes)).sum()) == pytest.approx(share)
        assert max(float(table.mean(a).abs().max()) for a in axes) < 1e-12
    first = np.random.RandomState(5000).randn(20, 7)
    first -= first.mean(1, keepdims=True)
    ratio = u.numpy() / first
    assert np.allclose(ratio, ratio[0, 0]), "u is drawn first"
    best = [-nk_chain(seed=seed).optimum for seed in range(5000, 5050)]
    assert round(float(np.mean(best)), 2) == 7.52


def test_noise_is_fresh_at_every_call_and_of_its_size():
    clean, noisy = nk_chain(4, 3), nk_chain(4, 3, noise=0.5)
    h = clean.space.uniform(4000, torch.Generator().manual_seed(0)).double()
    error = noisy.f(h) - clean.f(h)
    assert float(error.std()) == pytest.approx(0.5, rel=0.05)
    assert not torch.equal(noisy.f(h), noisy.f(h))
    policy = Factorised(clean.space).double()
    assert torch.equal(noisy.expectation(policy), clean.expectation(policy))


def test_what_is_not_known_is_refused():
    with pytest.raises(UsageError, match="Autoregressive lets later ones depend"):
        nk_chain(4, 3).expectation(Autoregressive(plain_space(3, 3, 3, 3)))
    with pytest.raises(UsageError, match="at least 3 decisions"):
        nk_chain(2)
    with pytest.raises(UsageError, match="got -1"):
        nk_chain(noise=-1)
