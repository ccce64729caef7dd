"""Interactions: its kernel is what it says, its weights climb, its shortcuts equal the long way."""

import itertools
import math

import pytest
import torch

from archgrad import Decision, Decisions, Factorised, UsageError
from archgrad.spaces.nasbench201 import NasBench201
from archgrad.surrogates import Interactions
from archgrad.surrogates.interactions import JITTER, neighbours
from archgrad.surrogates.kernels import cosine, laplace, of_counts
from archgrad.testing import plain_space

SPACE = plain_space(3, 2, 4, 3, 1)


def drawn(space, n, seed=0):
    return space.uniform(n, torch.Generator().manual_seed(seed))


def scrambled(model, seed=0):
    """All weights different."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.weights.items():
        weight = weight * (0.5 + torch.rand(weight.shape, generator=generator, dtype=torch.float64))
        model.weights[name] = (weight + weight.T) / 2 if name == "pair" else weight
    return model


def by_hand(model, a, b):
    """The sum of the docstring, term by term: ``[m, n]``."""
    D, w, z = SPACE.D, model.weights, []
    for d, decision in enumerate(SPACE.decisions):
        K = len(decision.options)
        same = (a[:, None, d] * b[None, :, d]).sum(-1).double()
        z.append((K * same - 1) / (K - 1) if K > 1 else 0 * same)
    V = w["pair"]
    U = model.chain if model.chain is not None else V / V.max()
    total = w["constant"] + sum(w["single"][i] * z[i] for i in range(D))
    total = total + sum(V[i, j] * z[i] * z[j] for i, j in itertools.combinations(range(D), 2))
    triples = largest = 0.0
    for j in range(D):
        for i, k in itertools.combinations([d for d in range(D) if d != j], 2):
            triples, largest = triples + U[i, j] * U[j, k] * z[i] * z[j] * z[k], largest + U[i, j] * U[j, k]
    return total + w["triple"] * triples / largest


@pytest.mark.parametrize("known", [True, False])
def test_the_kernel_is_the_sum_it_says(known):
    model = scrambled(Interactions(SPACE, neighbours=known))
    h = drawn(SPACE, 12)
    model.fit(h, torch.arange(12.0))  # the weights stay scrambled: they are climbed from here, and used as they are
    assert torch.allclose(model.against(h[:5]).double(), by_hand(model, h[:5], h), atol=2e-6)
    assert model.prior_variance == pytest.approx(
        float(sum(model.weights[n].sum() for n in ("constant", "single", "triple")) + model.weights["pair"].sum() / 2)
    )


@pytest.mark.parametrize("known", [True, False])
def test_around_is_against_of_all_neighbours(known):
    space = NasBench201()
    model = scrambled(Interactions(space, neighbours=known, kernels=of_counts(space.features)))
    h = drawn(space, 30)
    model.fit(h, torch.rand(30, generator=torch.Generator().manual_seed(1)))
    model.assume(drawn(space, 1, 5))
    x = drawn(space, 3, 2)
    at, k = model.around(x)
    want = model.against(neighbours(x).flatten(0, 2)).reshape(3, 30, -1)
    assert sorted(at[0].tolist()) == list(range(30))
    assert torch.allclose(k, want[torch.arange(3)[:, None], at], atol=2e-5)


@pytest.mark.parametrize("known", [True, False])
def test_the_most_promising_changes_come_first_and_none_that_does_not_exist(known):
    model = scrambled(Interactions(SPACE, neighbours=known))
    h = drawn(SPACE, 30)
    model.fit(h, torch.randn(30, generator=torch.Generator().manual_seed(1)))
    model.assume(drawn(SPACE, 1, 5))
    x = drawn(SPACE, 3, 2)
    every, _ = model.around(x)
    assert every.shape == (3, 3 + 2 + 4 + 3 + 1)
    assert bool((every % SPACE.K < model.counts[every // SPACE.K]).all())
    at, k = model.around(x, 5)
    near = neighbours(x).flatten(1, 2)[torch.arange(3)[:, None], every]
    means = model.mean(near)
    for s in range(3):
        order = every[s][means[s].argsort()]
        assert set(at[s, :3].tolist()) <= set(order[:5].tolist())
        chosen = neighbours(x[s : s + 1]).flatten(0, 2)[at[s]]
        assert torch.allclose(k[s], model.against(chosen), atol=2e-5)
    assert torch.allclose(model.fitted, model.mean(h), atol=1e-5)


def test_neighbours_differ_in_one_decision():
    x = drawn(SPACE, 2)
    near = neighbours(x)
    for s, d, k in itertools.product(range(2), range(SPACE.D), range(SPACE.K)):
        want = x[s].clone()
        want[d] = torch.eye(SPACE.K)[k]
        assert torch.equal(near[s, d, k], want)


def evidence(model, h, y):
    """log p(y), the standardised values, from the definition alone."""
    n = len(y)
    t = (y - y.mean()) / y.std(correction=0)
    C = by_hand(model, h, h) + (float(model.weights["noise"]) + JITTER) * torch.eye(n)
    return float(torch.distributions.MultivariateNormal(torch.zeros(n).double(), C).log_prob(t.double()))


@pytest.mark.parametrize("seed", range(4))
def test_without_pseudo_observations_every_step_climbs(seed):
    """The known chain: a chain that is V itself moves with it."""
    h = drawn(SPACE, 25, seed)
    y = torch.randn(25, generator=torch.Generator().manual_seed(seed)) + 3 * h[:, 0, 0] * h[:, 1, 1] + h[:, 2, 0]
    model = Interactions(SPACE, prior=0.0, steps=1)
    reached = []
    for _ in range(7):
        model.learned = 1  # as if one value had been there: a step, not the first six
        model.fit(h, y)
        reached.append(evidence(model, h, y))
    assert all(b > a - 1e-4 for a, b in itertools.pairwise(reached))
    assert reached[-1] > reached[0] + 0.1


def test_the_posterior_is_the_gaussian_conditional():
    h, x = drawn(SPACE, 20), drawn(SPACE, 7, 3)
    y = torch.randn(20, generator=torch.Generator().manual_seed(0)).double() * 3 + 5
    model = Interactions(SPACE)
    model.fit(h, y)
    k = by_hand(model, x, h)
    C = by_hand(model, h, h) + (float(model.weights["noise"]) + JITTER) * torch.eye(20)
    solved = torch.linalg.solve(C, (y - y.mean()) / y.std(correction=0))
    mean, deviation = model.posterior(model.against(x))
    scale = float(y.std(correction=0))
    variance = model.prior_variance - (k * torch.linalg.solve(C, k.T).T).sum(-1)
    assert torch.allclose(mean.double(), y.mean() + scale * (k @ solved), atol=1e-3)
    assert torch.allclose(model.mean(x), y.mean() + scale * (k @ solved), atol=1e-4)
    assert torch.allclose(deviation.double(), scale * variance.sqrt(), rtol=2e-2, atol=1e-3)


def test_what_is_assumed_narrows_the_deviation_as_an_evaluation_would_and_leaves_the_mean():
    h, new, x = drawn(SPACE, 20), drawn(SPACE, 2, 4), drawn(SPACE, 9, 3)
    y = torch.randn(20, generator=torch.Generator().manual_seed(0)).double()
    model, refitted = Interactions(SPACE, steps=0), Interactions(SPACE, steps=0)
    model.fit(h, y)
    before, wide = model.posterior(model.against(x))
    for row in new:
        model.assume(row[None])
    after, narrow = model.posterior(model.against(x))
    refitted.fit(torch.cat([h, new]), torch.cat([y, torch.zeros(2)]))
    want = refitted.posterior(refitted.against(x))[1] / refitted.scale * model.scale
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(narrow, want, rtol=1e-3, atol=1e-4)
    assert bool((narrow <= wide + 1e-6).all())
    assert bool((narrow < wide - 1e-3).any())


def test_the_mean_is_linear_in_every_row():
    """So that E[mean] under independent decisions is the mean at the marginals."""
    space = plain_space(3, 2, 4)
    model = Interactions(space)
    h = drawn(space, 15)
    model.fit(h, torch.randn(15, generator=torch.Generator().manual_seed(0)))
    policy = Factorised(space).double()
    policy.alpha.data += torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).double()
    every = space.enumerate().double()
    want = (policy.log_prob(every).exp() * model.mean(every)).sum().detach()
    assert float(model.mean(policy.marginals().detach()[None])) == pytest.approx(float(want), abs=1e-9)


@pytest.mark.parametrize("known", [True, False])
def test_it_finds_which_decisions_act_together(known):
    """Two pairs that are no neighbours in a chain of eight decisions of four: 150 values tell them from 26 others."""
    space = plain_space(*[4] * 8)
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 4, generator=generator) for _ in range(2))
    h = drawn(space, 150)
    y = torch.einsum("nk,kl,nl->n", h[:, 0], first, h[:, 5]) + torch.einsum("nk,kl,nl->n", h[:, 2], second, h[:, 7])
    model = Interactions(space, neighbours=known, steps=5)
    model.fit(h, y)
    V = model.weights["pair"].triu(1)
    order = V.flatten().argsort(descending=True)[:2].tolist()
    assert {divmod(o, 8) for o in order} == {(0, 5), (2, 7)}
    assert float(V[0, 5] + V[2, 7]) > 0.8 * float(V.sum())


@pytest.mark.parametrize("deviation", [0.0, 0.5, 1.0])
def test_it_tells_noise_from_effects(deviation):
    space = plain_space(*[3] * 6)
    generator = torch.Generator().manual_seed(0)
    h = drawn(space, 300)
    effects = torch.randn(6, 3, generator=generator)
    clean = (h * effects).sum((1, 2))
    y = clean + deviation * clean.std() * torch.randn(300, generator=generator)
    model = Interactions(space, steps=5)
    model.fit(h, y)
    assert float(model.weights["noise"]) == pytest.approx(deviation**2 / (1 + deviation**2), abs=0.08)


def test_weights_are_climbed_again_when_the_values_have_grown_by_a_tenth():
    h, y = drawn(SPACE, 60), torch.randn(60, generator=torch.Generator().manual_seed(0))
    model = Interactions(SPACE)
    model.fit(h[:40], y[:40])
    kept = dict(model.weights)
    model.fit(h[:43], y[:43])
    assert all(torch.equal(kept[n], model.weights[n]) for n in kept)
    model.fit(h[:44], y[:44])
    assert not torch.equal(kept["noise"], model.weights["noise"])


@pytest.mark.parametrize("known", [True, False])
def test_restored_it_says_the_same_and_goes_on(known):
    h, y = drawn(SPACE, 40), torch.randn(40, generator=torch.Generator().manual_seed(0))
    model, other = Interactions(SPACE, neighbours=known), Interactions(SPACE, neighbours=known)
    model.fit(h[:30], y[:30])
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.mean(h), other.mean(h))
    assert torch.allclose(model.fitted, other.fitted, atol=1e-9)
    for a, b in zip(model.posterior(model.against(h)), other.posterior(other.against(h)), strict=True):
        assert torch.equal(a, b)
    for m in (model, other):
        m.fit(h, y)
    assert torch.equal(model.mean(h), other.mean(h))


def test_the_state_of_a_model_without_values_forgets_them():
    space = plain_space(3, 3)
    h = space.enumerate()
    model = Interactions(space)
    empty = Interactions(space).state_dict()
    model.fit(h, torch.arange(9.0))
    model.load_state_dict(empty)
    assert model.h is None
    assert torch.equal(model.mean(h), Interactions(space).mean(h))
    assert torch.equal(model.against(h), torch.zeros(9, 0))


def test_a_state_of_another_model_is_refused():
    model = Interactions(SPACE)
    for other in (
        Interactions(SPACE, neighbours=False),
        Interactions(plain_space(3, 3)),
        Interactions(SPACE, kernels=of_counts(lambda h: h.flatten(1))),
    ):
        with pytest.raises(ValueError, match="a model with the same decisions, neighbours and kernels"):
            other.load_state_dict(model.state_dict())


def test_before_a_fit_it_says_what_it_says_of_everything():
    model = Interactions(SPACE)
    x = drawn(SPACE, 3)
    mean, deviation = model.posterior(model.against(x))
    assert mean.tolist() == [0, 0, 0]
    assert deviation.tolist() == pytest.approx([model.prior_variance**0.5] * 3)
    assert len(model.posterior(model.around(x)[1])[0][0]) == 3 + 2 + 4 + 3 + 1
    model.assume(x[:1])
    assert model.posterior(model.against(x[:1]))[1] < deviation[0] / 2


@pytest.mark.parametrize(("n", "values"), [(4, [1.0, 2.0]), (0, []), (2, [1.0, float("nan")])])
def test_a_fit_needs_a_value_an_architecture(n, values):
    with pytest.raises(UsageError, match=f"a finite value an architecture, got {n} and {len(values)} values"):
        Interactions(SPACE).fit(drawn(SPACE, 4)[:n], torch.tensor(values))


def test_kernels_of_counts():
    def features(h):
        return h.argmax(-1).float()

    a = torch.nn.functional.one_hot(torch.tensor([[1, 2], [2, 1], [0, 0]]), 3)
    assert cosine(features)(a)(a).tolist() == [
        pytest.approx([1, 0.8, 0], abs=1e-6),
        pytest.approx([0.8, 1, 0], abs=1e-6),
        [0, 0, 0],
    ]
    assert laplace(features, 2.0)(a)(a)[0].tolist() == pytest.approx([1, math.exp(-1), math.exp(-1.5)])


def test_counts_are_covered_by_three_kernels():
    """Additive, near and far."""
    counts = torch.cat([torch.zeros(1, 10), torch.ones(10, 10).tril()])
    kernels = [k(counts)(counts) for k in of_counts(lambda h: h)]
    assert torch.allclose(kernels[0][1:, 1:].diagonal(), torch.ones(10))
    assert float(kernels[0][10, 1]) == pytest.approx(0.1**0.5)
    assert float(kernels[1][0, 1]) == pytest.approx(math.exp(-1 / 2))
    assert float(kernels[2][0, 8]) == pytest.approx(math.exp(-1))


def test_bad_arguments():
    with pytest.raises(UsageError, match="prior should be a number of pseudo-observations, at least 0, got -1"):
        Interactions(SPACE, prior=-1)
    for bad in ({"steps": -1}, {"grow": 1.0}):
        with pytest.raises(UsageError, match="steps should not be negative and grow above 1"):
            Interactions(SPACE, **bad)


@pytest.mark.parametrize("options", [1, 2, 3])
def test_few_decisions(options):
    space = Decisions([Decision("a", tuple("abc"[:options])), Decision("b", tuple("xyz"))])
    model = Interactions(space)
    h = drawn(space, 6)
    model.fit(h, torch.arange(6.0))
    mean, deviation = model.posterior(model.around(h[:2])[1])
    assert mean.shape == (2, options + 3)
    assert bool(torch.isfinite(mean).all())
    assert bool(torch.isfinite(deviation).all())
