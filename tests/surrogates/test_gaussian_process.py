"""GaussianProcess: its kernel, its posterior and the slope of its likelihood against the formulas written out."""

import itertools
import math

import pytest
import torch

from archgrad import UsageError
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.surrogates import GaussianProcess
from archgrad.surrogates.gaussian_process import FLOOR, START, STRAY
from archgrad.testing import plain_space
from tests.estimators.test_score_function import curved

SPACE = plain_space(3, 2, 3)


def shaken(surrogate, seed=0):
    """Hyper-parameters away from their equal starts."""
    g = torch.Generator().manual_seed(seed)
    surrogate.hyper = {
        k: v + 0.3 * torch.randn(v.shape, generator=g, dtype=v.dtype) for k, v in surrogate.hyper.items()
    }
    return surrogate


def written_out(hyper, group, a, b):
    """k of two vertices, subset by subset."""
    z = []
    for d, (i, j) in enumerate(zip(a, b, strict=True)):
        g = group[d]
        amplitude = hyper["amplitude"][g]
        distance = (hyper["place"][g, i] - hyper["place"][g, j]).square().sum()
        z.append(hyper["relevance"][d].exp() * (amplitude[i] + amplitude[j] - distance).exp())
    total = hyper["order"][0].exp()
    for q in range(1, len(hyper["order"])):
        sets = list(itertools.combinations(z, q))
        total = total + hyper["order"][q].exp() * sum(math.prod(s) for s in sets) / len(sets)
    return total


def covariance(hyper, group, choices):
    known = {}
    for a, b in itertools.product({tuple(c) for c in choices}, repeat=2):
        known[a, b] = written_out(hyper, group, a, b)
    return torch.stack([torch.stack([known[tuple(a), tuple(b)] for b in choices]) for a in choices])


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_the_kernel_is_the_sum_over_sets_of_decisions(orders):
    surrogate = shaken(GaussianProcess(SPACE, orders=orders))
    h = SPACE.enumerate().double()
    choices = h.argmax(-1).tolist()
    want = covariance(surrogate.hyper, surrogate.group.tolist(), choices)
    assert torch.allclose(surrogate.kernel(h, h), want, atol=1e-12)
    assert torch.linalg.eigvalsh(want).min() > -1e-10


def test_decisions_with_the_same_options_share_what_options_are_like():
    assert GaussianProcess(SPACE).group.tolist() == [0, 1, 0]
    renamed = Decisions([Decision("x", ("a", "b")), Decision("y", ("b", "a")), Decision("z", ("a", "b"))])
    assert GaussianProcess(renamed).group.tolist() == [0, 1, 0]


def test_the_posterior_with_repeats_is_the_textbook_s():
    """K (K + noise)^-1 y over all evaluations, equal architectures included, after no learning."""
    g = torch.Generator().manual_seed(3)
    h = SPACE.uniform(30, g).double()
    assert len(torch.unique(h, dim=0)) < 20
    y = curved(h) + torch.randn(30, generator=g, dtype=torch.float64)
    surrogate = shaken(GaussianProcess(SPACE, steps=0))
    surrogate.fit(h, y)
    every = SPACE.enumerate().double()
    z = (y - y.mean()) / y.std(correction=0)
    noise = (surrogate.hyper["noise"].exp() + FLOOR) * torch.eye(30, dtype=torch.float64)
    weights = torch.linalg.solve(surrogate.kernel(h, h) + noise, z)
    want = y.mean() + y.std(correction=0) * surrogate.kernel(every, h) @ weights
    assert torch.allclose(surrogate.mean(every), want, atol=1e-9)


def test_learning_climbs_the_marginal_likelihood_of_all_evaluations():
    """Five steps against five steps of autograd on the log density written out, repeats and prior included."""
    g = torch.Generator().manual_seed(3)
    h = SPACE.uniform(14, g).double()
    y = curved(h) + torch.randn(14, generator=g, dtype=torch.float64)
    surrogate = shaken(GaussianProcess(SPACE, steps=5))
    hyper = {k: v.clone().requires_grad_() for k, v in surrogate.hyper.items()}
    surrogate.fit(h, y)
    z = (y - y.mean()) / y.std(correction=0)
    choices, group = h.argmax(-1).tolist(), surrogate.group.tolist()
    optimizer = torch.optim.Adam(hyper.values(), 0.1)
    losses = []
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 3.5 else 0.03
        c = covariance(hyper, group, choices) + (hyper["noise"].exp() + FLOOR) * torch.eye(14, dtype=torch.float64)
        density = torch.distributions.MultivariateNormal(torch.zeros(14).double(), c).log_prob(z)
        prior = sum((((hyper[k] - START[k]) / STRAY[k]) ** 2).sum() / 2 for k in hyper)
        losses.append(float((prior - density).detach()))
        optimizer.zero_grad()
        (prior - density).backward()
        optimizer.step()
    for k, v in hyper.items():
        assert torch.allclose(surrogate.hyper[k], v.detach(), atol=1e-6), k
    assert losses[-1] < losses[0]


EFFECT = torch.tensor([1.0, 0.0, 0.0, -2.0]).double()


def rough(h):
    """Three decisions that interact, and a last one that does nothing; b and c do the same."""
    x = (h * EFFECT).sum(-1)
    f = x[:, 0] + x[:, 1] * x[:, 2] - 0.5 * x[:, 2]
    return f / 2.4


def four(names):
    return Decisions([Decision(f"d{d}", tuple(names[d])) for d in range(4)])


def test_finds_what_does_not_matter_and_the_noise():
    g = torch.Generator().manual_seed(5)
    space = four(["abcd", "abcd", "abcd", "efgh"])
    h = space.uniform(200, g).double()
    surrogate = GaussianProcess(space)
    surrogate.fit(h, rough(h) + 0.1**0.5 * torch.randn(200, generator=g, dtype=torch.float64))
    moves = torch.stack([_change(surrogate, d, h) for d in range(4)])
    assert moves[3] < 0.05 * moves[:3].min(), moves
    noise = float(surrogate.hyper["noise"].exp()) * surrogate.scale**2
    assert 0.07 < noise < 0.14


def test_sharing_what_options_are_like_saves_evaluations():
    """Eight options, 30 evaluations: the error on the whole space with equal names is a tenth of that without."""
    effect = torch.randn(8, generator=torch.Generator().manual_seed(1)).double()

    def f(h):
        x = (h * effect).sum(-1)
        return x[:, 0] + x[:, 1] * x[:, 2] - 0.5 * x[:, 2] + x[:, 3]

    errors = []
    for names in (["abcdefgh"] * 4, ["abcdefgh", "ijklmnop", "qrstuvwx", "01234567"]):
        space = four(names)
        every = space.enumerate().double()
        h = space.uniform(30, torch.Generator().manual_seed(0)).double()
        surrogate = GaussianProcess(space)
        surrogate.fit(h, f(h))
        errors.append(float((surrogate.mean(every) - f(every)).square().mean() / f(every).var()))
    assert errors[0] < 0.4 * errors[1], errors


def _change(surrogate, d, h):
    """How far c moves when decision d is redrawn: its mean squared change."""
    other = h.clone()
    other[:, d] = h.roll(1, 0)[:, d]
    return (surrogate.mean(h) - surrogate.mean(other)).square().mean().detach()


def test_later_fits_start_where_the_last_ended():
    h = SPACE.enumerate().double()
    once, twice = GaussianProcess(SPACE, steps=30, refit=0), GaussianProcess(SPACE, steps=30, refit=0)
    once.fit(h[:10], curved(h[:10]))
    learned = {k: v.clone() for k, v in once.hyper.items()}
    once.fit(h, curved(h))
    assert all(torch.equal(v, once.hyper[k]) for k, v in learned.items())
    twice.fit(h, curved(h))
    assert not torch.equal(twice.hyper["relevance"], learned["relevance"])


def test_learning_from_a_subset_still_conditions_on_all():
    """Nearly noise-free: every architecture's value comes back, those outside the subset too."""
    space = plain_space(3, 3, 3)
    h = space.enumerate().double()
    surrogate = GaussianProcess(space, subset=10)
    surrogate.fit(h, curved(h))
    assert surrogate.support.shape == (27, 3, 3)
    assert (surrogate.mean(h) - curved(h)).square().mean() < 0.01 * curved(h).var()


def test_values_that_disagree_at_equal_architectures_do_not_break_the_factor():
    h = SPACE.enumerate().double()[:2].repeat(50, 1, 1)
    surrogate = GaussianProcess(SPACE)
    surrogate.fit(h, torch.arange(100.0).double())
    assert torch.isfinite(surrogate.mean(SPACE.enumerate())).all()


@pytest.mark.parametrize("arguments", [{"orders": 0}, {"steps": -1}, {"refit": -1}, {"subset": 1}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(UsageError, match="usual"):
        GaussianProcess(SPACE, **arguments)
