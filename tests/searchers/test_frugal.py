"""Frugal: it asks where it may be lowest, once each, and goes on where it was."""

import itertools

import pytest
import torch

from archgrad import Batch, Decision, Decisions, UsageError
from archgrad.recipes import frugal
from archgrad.searchers import Frugal
from archgrad.searchers.frugal import everything
from archgrad.spaces.nasbench201 import NasBench201
from archgrad.surrogates import Interactions
from archgrad.testing import conditional_space, plain_space

LARGE = plain_space(*[4] * 10)
"""A million architectures: the bound is descended."""


def stream(seed):
    return torch.Generator().manual_seed(seed)


def effects(space, seed=0):
    """Additive effects and those of neighbours."""
    u = torch.randn(space.D, space.K, generator=stream(seed))
    w = torch.randn(space.D, space.K, space.K, generator=stream(seed + 1))

    def f(h):
        return (h * u).sum((-2, -1)) + torch.einsum("nik,nil,ikl->n", h[:, :-1], h[:, 1:], w[:-1]) / 2

    return f


def search(searcher, f, trials, seed=0, first=0):
    """Every evaluated architecture and its value."""
    h, values = [], []
    step = first
    while sum(map(len, h)) < trials:
        batch = searcher.propose(stream(seed * 1000 + step))
        y = f(batch.h).double()
        searcher.observe(batch, y)
        h.append(batch.h)
        values.append(y)
        step += 1
    return torch.cat(h), torch.cat(values)


def lowest_of_chain(space, f):
    """By walking down from many places; checked against nothing better being found by the search."""
    best = torch.inf
    for seed in range(200):
        x = space.uniform(1, stream(seed))
        while True:
            near = torch.stack([x[0]] * (space.D * space.K))
            for d, k in itertools.product(range(space.D), range(space.K)):
                near[d * space.K + k, d] = torch.eye(space.K)[k]
            values = f(near)
            if values.min() >= f(x)[0] - 1e-6:
                break
            x = near[values.argmin()][None]
        best = min(best, float(f(x)[0]))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_lowest_of_a_million(seed):
    f = effects(LARGE, 10 * seed)
    _, values = search(frugal(LARGE), f, 150, seed)
    assert float(values.min()) <= lowest_of_chain(LARGE, f) + 1e-4


@pytest.mark.parametrize("space", [LARGE, conditional_space(), plain_space(3, 2, 4, 1)])
def test_nothing_is_evaluated_twice_while_there_is_something_new(space):
    searcher = frugal(space)
    trials = min(60, space.size)
    h, _ = search(searcher, lambda h: (h * torch.arange(space.K)).sum((-2, -1)), trials)
    keys = [space.key(a) for a in space.decode(h)]
    assert len(set(keys[:trials])) == trials
    assert bool((space.canonical(h) == h).all())


def test_a_space_that_is_used_up_is_evaluated_again():
    space = plain_space(2, 2)
    h, _ = search(frugal(space), lambda h: h[:, 0, 0] + h[:, 1, 1], 30)
    assert len(h) >= 30


def test_equal_networks_are_one():
    space = NasBench201()
    h, _ = search(frugal(space), lambda h: (h * torch.arange(5.0)).sum((-2, -1)), 60)
    keys = [space.key(a) for a in space.decode(h)]
    assert len(set(keys)) == len(keys)
    every = everything(space)
    assert len(every) == 5425
    assert len({space.key(a) for a in space.decode(every)}) == 5425


def test_with_noise_an_architecture_is_worth_a_second_evaluation():
    space = plain_space(3, 3)
    noise = stream(9)
    h, _ = search(
        frugal(space), lambda h: (h * torch.arange(3.0)).sum((-2, -1)) + 2 * torch.randn(len(h), generator=noise), 60
    )
    assert len(torch.unique(h, dim=0)) == 9
    later = h[30:].argmax(-1).tolist()
    assert later.count([0, 0]) > len(later) / 5  # the best of nine more often than by chance


def test_where_a_repeat_gives_the_same_nothing_is_repeated_again():
    """What a poor model takes for noise: effects of all ten decisions at once."""
    f = hashed
    h, _ = search(frugal(LARGE), f, 120)
    assert len(h) - len({tuple(row) for row in h.argmax(-1).tolist()}) <= 4  # a batch's worth
    searcher = frugal(LARGE)
    search(searcher, f, 30)
    assert not searcher.repeatable
    searcher.observe(Batch(searcher.h[:1]), searcher.values[:1])
    assert searcher.repeatable
    other = frugal(LARGE)
    other.load_state_dict(searcher.state_dict())
    assert other.repeatable


def test_a_tie_by_chance_does_not_hide_noise():
    """Accuracies of few examples tie; where they do, three repeats have to agree, and one that differs is enough."""
    searcher = frugal(plain_space(3, 3))
    h = searcher.space.enumerate()[:3]
    searcher.observe(Batch(h), torch.tensor([1.0, 1.0, 2.0]))
    for _ in range(2):
        searcher.observe(Batch(h[:1]), torch.tensor([1.0]))
        assert not searcher.repeatable
    searcher.observe(Batch(h[:1]), torch.tensor([1.0]))
    assert searcher.repeatable
    searcher.observe(Batch(h[2:]), torch.tensor([2.5]))
    assert not searcher.repeatable


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_values_that_cannot_be_modelled_are_refused_when_they_come(bad):
    searcher = frugal(LARGE)
    batch = searcher.propose(stream(0))
    with pytest.raises(UsageError, match="values should be finite and below 1e"):
        searcher.observe(batch, torch.tensor([1.0, bad, 1.0, 1.0]).double())
    assert not len(searcher.values)


def test_bounds_are_those_of_the_architectures_they_stand_beside():
    """Also where a change switches other decisions off."""
    names = tuple("abcdefgh")
    nested = [Decision(f"o{i}", tuple("uvwxyz"), when=tuple((0, j) for j in range(i, 8))) for i in range(8)]
    for space in (LARGE, Decisions([Decision("n", names), *nested])):
        searcher = frugal(space)
        search(searcher, lambda h, s=space: (h * torch.linspace(0, 1, s.D * s.K).view(s.D, s.K)).sum((-2, -1)), 40)
        x, bound = searcher._descended(searcher._model(), 2.0, stream(0))
        assert bool((space.canonical(x) == x).all())
        again = searcher._bound(searcher.surrogate.against(x), 2.0)
        assert torch.allclose(bound, again, atol=1e-3 * searcher.surrogate.scale)


def test_a_space_of_few_networks_and_many_encodings_is_descended():
    nested = [Decision(f"o{i}", tuple("abcdef"), when=((0, min(7, i // 2 + 1)),)) for i in range(12)]
    space = Decisions([Decision("n", tuple("12345678")), *nested])
    assert space.size == 218
    h, _ = search(frugal(space), lambda h: h[:, 0, 0], 30)
    assert len(h) >= 30


def hashed(h):
    """No two architectures have anything in common."""
    rows = h.argmax(-1).tolist()
    return torch.tensor([float(torch.randn((), generator=stream(hash(tuple(r)) % 2**31))) for r in rows])


def test_how_bad_the_bad_are_changes_nothing():
    def f(h, bad):
        values = effects(LARGE)(h)
        return torch.where(h[:, 0, 0] > 0, torch.full_like(values, bad), values)

    one, two = (search(frugal(LARGE), lambda h, b=bad: f(h, b), 60)[0] for bad in (1e2, 1e6))
    assert torch.equal(one, two)


def test_killed_and_restored_it_is_the_same_search():
    f = effects(LARGE)
    whole, _ = search(frugal(LARGE), f, 60)
    first = frugal(LARGE)
    half, _ = search(first, f, 30)
    first.propose(stream(len(half)))  # a proposal that nobody answered
    second = frugal(LARGE)
    second.load_state_dict(first.state_dict())
    steps = next(n for n in range(100) if sum(sizes(n)) >= 30)
    rest, _ = search(second, f, 60 - len(half), first=steps)
    assert torch.equal(torch.cat([half, rest])[: len(whole)], whole[: len(half) + len(rest)])


def sizes(n):
    """The first n batches: ten to begin with, by fours."""
    return ([4, 4, 2] + [4] * n)[:n]


def test_proposing_again_without_an_answer_proposes_the_same():
    searcher = frugal(LARGE)
    search(searcher, effects(LARGE), 40)
    assert torch.equal(searcher.propose(stream(5)).h, searcher.propose(stream(5)).h)


def test_a_bound_without_deviation_asks_where_the_mean_is_lowest():
    """And with a large one where least is known: an option that was never evaluated."""
    space = plain_space(3, 3, 3)
    every = space.enumerate()
    known = every[every[:, 0, 2] == 0]
    values = (known * torch.tensor([0.0, 1.0, 2.0])).sum((-2, -1)).double()
    for beta, option in ((0.0, 0), (30.0, 2)):
        searcher = Frugal(space, Interactions(space), beta=beta, samples=1)
        searcher.observe(Batch(known[1:]), values[1:])
        assert int(searcher.propose(stream(0)).h[0, 0].argmax()) == option


@pytest.mark.parametrize(
    ("noise", "betas", "assumed", "same"),
    [
        (1e-3, (3.6, 5.1, 1.5, 2.4), True, True),
        (1e-3, (3.6, 5.1, 1.5, 2.4), False, False),
        (1e-3, (3.0, 3.0, 3.0, 3.0), True, False),
        (0.2, (3.6, 5.1, 3.6, 3.6), True, True),
        (0.2, (3.6, 5.1, 1.5, 2.4), True, False),
    ],
)
def test_a_batch_is_chosen_one_by_one_each_counting_for_the_next(noise, betas, assumed, same):
    """As one would by hand, beta taking its shares in turn; low ones, and only new architectures, without noise."""
    space = plain_space(*[3] * 5)
    searcher, twin = (Frugal(space, Interactions(space, steps=0)) for _ in range(2))
    for each in (searcher, twin):
        each.surrogate.weights["noise"] = torch.tensor(noise).double()
    search(searcher, effects(space), 22)
    twin.load_state_dict(searcher.state_dict())
    assert len(twin._model()) == 8
    model, every, by_hand = twin.surrogate, space.enumerate(), []
    for beta in betas:
        mean, deviation = model.posterior(model.against(every))
        order = (mean - beta * deviation).argsort().tolist()
        taken = {space.key(a) for h in by_hand for a in space.decode(h[None])}
        if noise < 0.01:
            taken |= set(twin.seen)
        pick = next(every[i] for i in order if space.key(space.decode(every[i : i + 1])[0]) not in taken)
        by_hand.append(pick)
        if assumed:
            model.assume(pick[None])
    assert torch.equal(searcher.propose(stream(0)).h, torch.stack(by_hand)) is same


def test_the_best_are_different_networks():
    """Where there is noise the best is evaluated often, and would be all that a descent begins at."""
    space = plain_space(*[3] * 5)
    searcher = Frugal(space, Interactions(space), top=6)
    h = space.enumerate()[:12]
    values = torch.arange(12.0).double()
    searcher.observe(Batch(torch.cat([h, h[:1], h[:1]])), torch.cat([values, values[:1], values[:1]]))
    good = searcher._model()
    assert len(good) == 6
    assert len({space.key(a) for a in space.decode(good)}) == 6


def test_the_latest_are_modelled():
    searcher = Frugal(LARGE, Interactions(LARGE), keep=30)
    search(searcher, effects(LARGE), 50)
    searcher.propose(stream(0))
    assert len(searcher.surrogate.h) == 30


def test_beginning_near_a_default():
    space = plain_space(*[4] * 10)
    prior = torch.zeros(10, 4)
    prior[:, 3] = 5.0
    batch = Frugal(space, Interactions(space), prior=prior).propose(stream(0))
    assert float(batch.h[..., 3].mean()) > 0.8
    believed = Frugal(space, Interactions(space), prior=prior).marginals(stream(0))
    assert torch.allclose(believed.sum(-1), torch.ones(10))


def test_marginals_lean_to_the_best():
    searcher = frugal(LARGE)
    f = effects(LARGE)
    h, values = search(searcher, f, 100)
    best = h[values.argmin()]
    believed = searcher.marginals(stream(0))
    assert float((believed * best).sum(-1).mean()) > 0.6
    assert torch.allclose(believed.sum(-1), torch.ones(10))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"samples": 0}, "samples should be at least 1, got 0"),
        ({"starts": 0}, "starts should be at least 1, got 0"),
        ({"initial": 1}, "initial should be at least 2, and keep at least as many, got 1 and 600"),
        ({"keep": 5}, "got 10 and 5; a model needs values that differ"),
        ({"beta": -1.0}, "beta and changes should not be negative .nor infinite., and clip be positive"),
    ],
)
def test_bad_arguments(bad, said):
    with pytest.raises(UsageError, match=said):
        Frugal(LARGE, Interactions(LARGE), **bad)


def test_options_of_one_kind():
    space = Decisions([Decision("a", ("x",)), Decision("b", ("x",))])
    h, _ = search(frugal(space), lambda h: h.sum((-2, -1)), 12)
    assert len(h) >= 12
