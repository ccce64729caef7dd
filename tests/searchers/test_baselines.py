"""Random search, local search and evolution: what each promises, on plain, ragged and conditional spaces."""

import pytest
import torch

from archgrad import UsageError
from archgrad.policies.prior import near
from archgrad.searchers.choices import Choices
from archgrad.searchers.evolution import RegularisedEvolution
from archgrad.searchers.local_search import LocalSearch
from archgrad.searchers.random_search import RandomSearch
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.testing import conditional_space, plain_space

SPACES = {"plain": plain_space(4, 4, 4), "ragged": plain_space(2, 5, 3, 1), "conditional": conditional_space()}
MAKES = {
    "random": lambda space: RandomSearch(space, 3),
    "local": lambda space: LocalSearch(space, 3),
    "evolution": lambda space: RegularisedEvolution(space, 5, 3),
}


class Halves(Decisions):
    """A space whose networks do not know their last decision."""

    def key(self, architecture):
        return "".join(architecture[:-1])


def value(h):
    """Any function of the architecture, without ties."""
    D, K = h.shape[-2:]
    table = torch.rand(D, K, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    pairs = torch.rand(D * K, D * K, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    flat = h.flatten(-2).double()
    return (h * table).sum((-2, -1)) + ((flat @ pairs) * flat).sum(-1)


def walked(searcher, steps, seed=0, f=value):
    """Architectures by name and their values, in order."""
    generator = torch.Generator().manual_seed(seed)
    asked = []
    for _ in range(steps):
        batch = searcher.propose(generator)
        values = f(batch.h)
        searcher.observe(batch, values)
        asked += zip(searcher.space.decode(batch.h), values.tolist(), strict=True)
    return asked


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_architectures_of_the_space_canonical_and_repeatable(space, make):
    searcher = make(space)
    for t in range(30):
        batch = searcher.propose(torch.Generator().manual_seed(t))
        again = searcher.propose(torch.Generator().manual_seed(t))
        assert torch.equal(batch.h, again.h)
        assert torch.equal(batch.h, space.encode(space.decode(batch.h)))  # vertices, existing choices, canonical
        searcher.observe(batch, value(batch.h))
        marginals = searcher.marginals(torch.Generator())
        assert marginals.shape == (space.D, space.K)
        assert torch.allclose(marginals.sum(-1), torch.ones(space.D))
        assert not marginals[~space.mask].any()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_a_restored_search_goes_on_exactly(space, make):
    whole, part = make(space), make(space)
    want = walked(whole, 25)
    generator = torch.Generator().manual_seed(0)
    got = []
    for _ in range(25):
        restored = make(space)
        restored.load_state_dict(part.state_dict())
        batch = restored.propose(generator)
        restored.observe(batch, value(batch.h))
        got += zip(space.decode(batch.h), value(batch.h).tolist(), strict=True)
        part = restored
    assert got == want


@pytest.mark.parametrize("make", [MAKES["random"], MAKES["local"]], ids=["random", "local"])
@pytest.mark.parametrize("space", [*SPACES.values(), Halves(plain_space(3, 3, 4).decisions)], ids=[*SPACES, "halves"])
def test_no_network_is_paid_for_twice_until_all_are_known(make, space):
    searcher = make(space)
    keys = {space.key(a) for a in space.decode(space.enumerate())}
    asked = []
    generator = torch.Generator().manual_seed(1)
    while len(asked) + 3 <= len(keys):
        batch = searcher.propose(generator)
        asked += [space.key(a) for a in space.decode(batch.h)]
        searcher.observe(batch, value(batch.h))
    assert len(set(asked)) == len(asked)
    for _ in range(5):  # used up, it repeats and does not stop
        batch = searcher.propose(generator)
        asked += [space.key(a) for a in space.decode(batch.h)]
        searcher.observe(batch, value(batch.h))
    assert set(asked) == keys


def test_random_search_may_repeat_if_asked():
    asked = [a for a, _ in walked(RandomSearch(plain_space(2, 2), 3, distinct=False), 10)]
    assert len(asked) == 30
    assert len(set(asked)) == 4


def test_random_search_is_uniform_over_ragged_choices():
    """Each of 5 choices of a decision in 4,000 draws; 5 sd of a binomial: false alarm below 1e-5."""
    batch = RandomSearch(plain_space(2, 5, 3, 1), 4000, distinct=False).propose(torch.Generator().manual_seed(0))
    share = batch.h.mean(0)[1]
    assert (share - 0.2).abs().max() < 5 * (0.2 * 0.8 / 4000) ** 0.5


def changed(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def test_local_search_asks_for_neighbours_of_the_best_and_moves_at_the_first_improvement():
    """Retraced by hand from its answers on a space too large to restart in."""
    space = plain_space(*[5] * 8)
    asked = walked(LocalSearch(space, 4), 25)
    here = min(asked[:4], key=lambda pair: pair[1])
    moves = 0
    for architecture, found in asked[4:]:
        assert changed(architecture, here[0]) == 1
        if found < here[1]:
            here, moves = (architecture, found), moves + 1
    assert moves >= 3


def test_local_search_starts_anew_when_all_neighbours_are_worse():
    """All choices add up and a is best: from an optimum at (a, a, a) all 9 neighbours, then anything unknown."""
    space = plain_space(4, 4, 4)
    f = lambda h: -h[..., 0].sum(-1).double()  # noqa: E731
    search = LocalSearch(space, 1)
    asked = walked(search, 40, f=f)
    at = [a for a, _ in asked].index(("a", "a", "a"))
    around = {a for a, _ in asked[: at + 1 + 9] if changed(a, ("a", "a", "a")) == 1}
    assert len(around) == 9
    asked_all = [a for a, _ in asked]
    assert len(set(asked_all)) == 40


def test_local_search_moves_over_known_networks_for_nothing():
    """It stands at aa = 5 and ab = 3, ba = 1 are known: a free move, so it asks for the last one, bb."""
    space = plain_space(2, 2)
    search = LocalSearch(space, 1)
    search.load_state_dict({"at": [0, 0], "known": [[[0, 0], 5.0], [[0, 1], 3.0], [[1, 0], 1.0]]})
    for seed in range(8):
        batch = search.propose(torch.Generator().manual_seed(seed))
        assert space.decode(batch.h) == [("b", "b")]
        assert batch.memo["centre"].tolist() in ([[0, 1]], [[1, 0]])
    search.observe(batch, torch.tensor([9.0]))
    assert search.at == tuple(batch.memo["centre"][0].tolist())  # worse than where it stood by then


def test_evolution_forgets_the_oldest_however_good():
    space = plain_space(*[4] * 6)
    search = RegularisedEvolution(space, 5, 5)
    generator = torch.Generator().manual_seed(0)
    first = search.propose(generator)
    assert len(first) == 5
    search.observe(first, torch.tensor([0.0, 1, 2, 3, 4]))  # the oldest is the best
    best, second = search.choices.read(first.h)[:2]
    child = search.propose(generator)
    search.observe(child, torch.tensor([9.0]))
    assert [v for _, v in search.population] == [1, 2, 3, 4, 9]
    assert best not in [x for x, _ in search.population]
    assert search.population[0][0] == second
    assert search.population[-1][0] == search.choices.read(child.h)[0]


def test_a_child_differs_from_the_tournaments_winner_in_one_active_decision():
    """A tournament of 200 in 4 has them all, but for odds of 4 * .75 ** 200."""
    for space in (*SPACES.values(), plain_space(*[4] * 6)):
        search = RegularisedEvolution(space, 4, 200)
        h = space.enumerate()[:4] if space.conditional else space.uniform(4, torch.Generator().manual_seed(0))
        search.load_state_dict(
            {"population": [[list(x), v] for x, v in zip(search.choices.read(h), (3.0, 1.0, 2.0, 5.0), strict=True)]}
        )
        parent = search.choices.read(h)[1]
        children = set()
        for seed in range(400):
            child = search.choices.read(search.propose(torch.Generator().manual_seed(seed)).h)[0]
            children.add(child)
            assert child in {
                search.choices.canonical((*parent[:d], k, *parent[d + 1 :]))
                for d, on in enumerate(search.choices.active(parent))
                for k in range(search.choices.counts[d])
                if on and k != parent[d]
            }
        if not space.conditional:  # every neighbour comes; 18 at most, the rarest with odds (1 - 1/18) ** 400
            assert len(children) == sum(len(d.options) - 1 for d in space.decisions)


def test_a_small_tournament_draws_with_replacement_and_lets_others_win():
    space = plain_space(*[9] * 3)
    search = RegularisedEvolution(space, 2, 1)
    search.load_state_dict({"population": [[[0, 0, 0], 0.0], [[8, 8, 8], 1.0]]})
    near_second = 0
    for seed in range(200):
        child = search.choices.read(search.propose(torch.Generator().manual_seed(seed)).h)[0]
        near_second += sum(k == 8 for k in child) >= 2
    assert 60 < near_second < 140  # half of 200 is 100, sd 7: false alarm 1e-8


@pytest.mark.parametrize("make", [LocalSearch, RegularisedEvolution])
def test_what_is_drawn_first_comes_from_the_prior(make):
    """.9 at the default in each of 3 decisions; 600 draws of 3, 5 sd."""
    space = plain_space(4, 4, 4)
    default = ("b", "c", "d")
    search = make(space, 600, prior=near(space, default, 0.9))
    h = search.choices.batch(search.choices.draw(600, torch.Generator().manual_seed(0))).h
    share = (h * space.encode([default])[0]).sum(-1).mean()
    assert abs(share - 0.9) < 5 * (0.9 * 0.1 / 1800) ** 0.5
    assert torch.allclose(search.marginals(torch.Generator()), near(space, default, 0.9).softmax(-1), atol=1e-6)


def test_the_walk_finds_the_one_that_is_left():
    """One of 2,197 is unseen; the hundred draws before the walk find it once in 22 seeds, and not with this one."""
    choices = Choices(plain_space(13, 13, 13))
    every = choices.read(choices.space.enumerate())
    left = every[371]
    assert choices.fresh(1, set(every) - {left}, torch.Generator().manual_seed(0)) == [left]


def test_a_key_is_asked_once():
    class Counted(Halves):
        asked = 0

        def key(self, architecture):
            Counted.asked += 1
            return super().key(architecture)

    space = Counted(plain_space(3, 3, 2).decisions)
    for search in (LocalSearch(space, 2), LocalSearch(space, 3), RandomSearch(space, 3)):
        walked(search, 3)
    assert Counted.asked <= 18  # as many as there are architectures, over all searches
    assert LocalSearch(Counted(space.decisions)).choices.key((0, 0, 0)) == "aa"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: RandomSearch(s, 0), "samples should be at least 1, got 0"),
        (lambda s: LocalSearch(s, 0), "starts should be at least 1, got 0"),
        (lambda s: RegularisedEvolution(s, 0), "population and tournament should be at least 1, got 0 and 25"),
        (lambda s: RegularisedEvolution(s, 5, 0), "population and tournament should be at least 1, got 5 and 0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make(plain_space(2, 2))


def test_a_space_of_one_architecture_is_searched_too():
    space = Decisions([Decision("only", ("a",))])
    for make in MAKES.values():
        assert {a for a, _ in walked(make(space), 4)} == {("a",)}


def test_a_space_that_is_used_up_is_looked_through_once_a_call():
    """Not once for each of the rest, which took minutes for a batch far above the space's size."""
    choices = Choices(plain_space(4, 4, 4))
    walks = []
    walked_through = choices._walked
    choices._walked = lambda *given: walks.append(0) or walked_through(*given)
    found = choices.fresh(1000, (), torch.Generator().manual_seed(0))
    assert len(found) == 1000
    assert len(set(found[:64])) == 64
    assert len(walks) < 64
