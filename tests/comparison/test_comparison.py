"""Comparisons: what is measured, summed up and said, by hand and by brute force."""

import dataclasses
import json
import math

import pytest
import torch

from archgrad import UsageError, mlp
from archgrad.benchmarks.benchmark import from_table
from archgrad.benchmarks.landscapes import landscapes
from archgrad.benchmarks.table import Column, Table
from archgrad.comparison import compare
from archgrad.comparison.compare import side_by_side
from archgrad.comparison.measuring import measure
from archgrad.comparison.named import named
from archgrad.comparison.row import row_of
from archgrad.comparison.statistics import dense, first_hit, incumbents, looks, quartiles
from archgrad.recipes import RECIPES
from archgrad.records import Batch
from archgrad.searchers.each import Each
from archgrad.searchers.recipe import Recipe
from archgrad.spaces.decisions import Decision, Decisions
from archgrad.testing import plain_space

INF = math.inf
SPACE = plain_space(3, 4)


def table(noise=0.0):
    """f of architecture (i, j) is 10 - its place; what is reported is twice its place."""
    losses = 10 - torch.arange(12).double()
    columns = (
        Column(name="valid", split="cost", values=losses),
        Column(name="test", split="cost", better="higher", values=2 * torch.arange(12).double()),
    )
    return from_table(Table("made", SPACE, columns), "valid", ["test"], noise)


class Scripted:
    """Asks for given places of the table, run by run, so many a batch."""

    name = "scripted"
    integrates = False

    def __init__(self, places, samples):
        self.places, self.samples = torch.tensor(places), samples
        self.seen = []

    def propose(self, generator):
        at = sum(v.shape[1] for v in self.seen)
        places = self.places[:, at : at + self.samples]
        h = SPACE.enumerate()[places]
        return Batch(h)

    def observe(self, batch, values, cost=None):
        self.seen.append(values)
        return {}


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([7], (7, 7, 7)),
        ([4, 1, 3, 2], (1, 2, 3)),
        ([5, 4, 3, 2, 1], (2, 3, 4)),
        ([1, 2, 3, 4, 5, 6, 7, 8], (2, 4, 6)),
        ([1, 2, INF, INF], (1, 2, None)),
        ([1, INF, INF, INF], (1, None, None)),
        ([1, INF, INF, INF, INF], (None, None, None)),
    ],
)
def test_quartiles_by_hand(values, want):
    assert quartiles(torch.tensor(values, dtype=torch.float64)) == want


def test_first_hits_by_hand():
    values = torch.tensor([[3.0, 2, 1, 2], [5, 5, 5, 5], [0, 9, 9, 9]])
    assert first_hit(values, torch.tensor([2.0])).tolist() == [2, INF, 1]
    assert first_hit(values, torch.tensor([1.0, 5.0, -1.0])).tolist() == [3, 1, INF]


def test_the_incumbent_is_the_first_of_the_lowest_observed():
    observed = torch.tensor([[3.0, 1, 2, 1, 0], [1, 1, 1, 2, 0.5]])
    assert incumbents(observed).tolist() == [[0, 1, 1, 1, 4], [0, 0, 0, 0, 4]]


def test_where_it_is_looked_at():
    assert looks(300) == [10, 20, 50, 100, 200, 300]
    assert looks(7) == [7]
    assert looks(10) == [10]
    assert dense(1) == [1]
    assert dense(5000)[0] == 1
    assert dense(5000)[-1] == 5000
    assert len(dense(5000)) <= 41


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_a_row_by_hand(samples):
    """Optimum -1 at place 11, mean 4.5; level .8 is .1, so place 10 (f = 0) is a hit and place 9 (f = 1) is none."""
    places = [[0, 9, 10, 11, 3], [10, 1, 1, 1, 1], [0, 1, 2, 3, 4], [9, 9, 9, 9, 10]]
    course = measure(table(), Scripted(places, samples), 4, 5, 0)
    assert course.values.tolist() == [[10.0 - p for p in run] for run in places]
    row = row_of("scripted", table(), course, [0.8, 1.0])
    assert row.samples_to == {0.8: (1, 3, 5), 1.0: (4, None, None)}
    assert row.regret == {5: (0, 1, 1)}
    assert row.curve[1] == (1, 2, 11)
    assert row.reported["test"][5] == (pytest.approx((22 + 20 + 8 + 20) / 4), pytest.approx(6.403, abs=1e-3))
    assert row.json()["samples_to"] == {"0.8": [1, 3, 5], "1": [4, None, None]}


def test_what_is_reported_is_of_the_incumbent_of_that_time():
    course = measure(table(), Scripted([[*range(12)]], 4), 1, 12, 0)
    row = row_of("scripted", table(), course, [1.0])
    assert row.reported["test"] == {10: (18, None), 12: (22, None)}
    assert row.regret == {10: (2, 2, 2), 12: (0, 0, 0)}


def test_the_incumbent_is_chosen_by_what_was_observed_and_judged_by_the_truth():
    benchmark = table(noise=5.0)
    places = [[i % 12 for i in range(60)]] * 20
    searcher = Scripted(places, 10)
    course = measure(benchmark, searcher, 20, 60, 0)
    assert not torch.equal(course.observed, course.values)
    assert torch.equal(torch.cat(searcher.seen, -1), course.observed)  # the search knows no more than that
    row = row_of("scripted", benchmark, course, [1.0])
    assert row.samples_to[1.0] == (12, 12, 12)  # without noise: the first time that place 11 comes
    assert row.regret[60][2] > 0  # but noise made others look better
    assert abs(float((course.observed - course.values).std()) - 5) < 0.6  # 1,200 draws: sd .1


def test_the_last_batch_is_cut_and_not_learned_from():
    searcher = Scripted([[1, 2, 3, 4, 5, 6]], 3)
    course = measure(table(), searcher, 1, 5, 0)
    assert course.values.tolist() == [[9, 8, 7, 6, 5]]
    assert [v.tolist() for v in searcher.seen] == [[[9, 8, 7]]]
    with pytest.raises(UsageError, match="for 2 runs, got"):
        measure(table(), Scripted([[1, 2]], 1), 2, 2, 0)


def test_recipes_of_gradients_are_one_program_and_others_follow_one_another():
    assert isinstance(side_by_side([named("ppo")(SPACE, r) for r in range(3)]), Recipe)
    assert isinstance(side_by_side([named("nasnet")(SPACE, r) for r in range(3)]), Recipe)
    assert isinstance(side_by_side([named("local_search")(SPACE, r) for r in range(3)]), Each)
    assert isinstance(side_by_side([named("relax")(SPACE, r) for r in range(3)]), Each)


@pytest.mark.parametrize("name", [n for n in RECIPES if n not in ("doubly_robust", "frugal")])
def test_every_recipe_can_be_compared_and_repeats(name):
    benchmark = landscapes(5, 3, [1, 2, 3], noise=0.1)
    a, b = (compare(benchmark, [name], runs=3, budget=120, seed=7).rows[0] for _ in range(2))
    assert a.samples_to == b.samples_to
    assert a.regret == b.regret
    assert a.regret[120][1] < a.regret[10][1]
    assert a.seconds_per_sample > 0


def test_what_learns_beats_chance():
    """Median regret after 600 evaluations of a 10 x 4 chain, 20 runs; measured 0 to .5 against 1.8."""
    benchmark = landscapes(10, 4, range(20))
    done = compare(
        benchmark, ["random_search", "ppo", "local_search", "regularised_evolution"], runs=20, budget=600, levels=[0.9]
    )
    random, *others = (row.regret[600][1] for row in done.rows)
    assert all(other < random - 0.5 for other in others)


def test_settings_from_text():
    made = named("reinforce:lr=0.04,samples=7,baseline=moving-average,entropy=0.5")(SPACE, 0)
    assert made.estimator.samples == 7
    assert made.estimator.baseline == "moving-average"
    assert made.estimator.entropy == 0.5
    assert made.optimizer.defaults["lr"] == 0.04
    assert named("reinforce:entropy=none")(SPACE, 0).estimator.entropy == 0.03
    assert named("random_search:distinct=false")(SPACE, 0).distinct is False
    assert named("regularised_evolution:population=7,tournament=2")(SPACE, 0).size == 7
    assert not named("ppo")(mlp((4,), 2), 0).policy.alpha.any()  # a space with a default


def test_every_run_has_a_seed_of_its_own(monkeypatch):
    seeds = []

    def seeded(space, seed=0):
        seeds.append(seed)
        return RECIPES["ppo"](space, seed)

    monkeypatch.setattr("archgrad.comparison.named.RECIPES", {"seeded": seeded})
    compare(table(), ["seeded"], runs=3, budget=10, seed=7)
    assert seeds == [7, 8, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("renforce", "did you mean 'reinforce'"),
        ("reinforce:l=1", "a setting of reinforce should be one of samples, lr, entropy, baseline, got 'l'"),
        ("ppo:epoch=3", "did you mean 'epochs'"),
        ("ppo:near_default=0.9", "a setting of ppo should be one of"),
        ("ppo:samples=1.5", "ppo:samples should be a whole number, got '1.5'"),
        ("ppo:lr=fast", "ppo:lr should be a number, got 'fast'"),
        ("ppo:lr", "settings should be name=value, got 'lr'"),
        ("reinforce:baseline=moving", "got 'moving'; did you mean 'moving-average'"),
        ("random_search:distinct=1", "should be true or false, got '1'"),
        ("ppo:samples=1", "samples should be at least 2"),
    ],
)
def test_wrong_text_is_refused_in_one_line_before_anything_runs(text, message):
    with pytest.raises(UsageError, match=message) as told:
        compare(table(), ["random_search", text], runs=2, budget=10**9)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "runs should be at least 1"),
        ({"budget": 0}, "budget should be at least 1"),
        ({"levels": [0.9, 0.5, 0.9]}, "levels should differ, got 0.9 twice"),
        ({"levels": [0.5, 1.5]}, "levels should be above 0 and at most 1 .* got 1.5"),
        ({"recipes": []}, "a recipe to compare"),
        ({"recipes": ["ppo", "random_search", "ppo"]}, "recipes should differ, got ppo twice"),
        ({"seed": -1}, "seed should be between 0 and"),
        (
            {"recipes": ["reinforce:lr=-1"]},
            "reinforce:lr=-1 should have settings that can be, got: Invalid",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        compare(**({"benchmark": table(), "recipes": ["ppo"], "runs": 2, "budget": 10} | change))
    with pytest.raises(UsageError, match="made for 3 runs, got 2"):
        compare(landscapes(4, 2, [1, 2, 3]), ["ppo"], runs=2, budget=10)


def test_values_that_do_not_vary_are_refused():
    """Every architecture would be the optimum."""
    flat = Table("flat", SPACE, (Column(name="valid", split="cost", values=torch.ones(12).double()),))
    with pytest.raises(UsageError, match="values of flat should vary, but all are the same; search on another column"):
        compare(from_table(flat, "valid", [], 0.0), ["ppo"], runs=2, budget=10)


@pytest.mark.parametrize(("scale", "shift"), [(1e-12, 0.0), (1.0, 0.0), (1.0, 1e9), (1e-3, -1e8)])
def test_hits_do_not_depend_on_units(scale, shift):
    """Nor on a level: the optimum counts in any of 20 tables, and what is short of it in none.

    Without what is forgiven for rounding it does not in some: mean - (mean - optimum) falls below the optimum.
    """
    for seed in range(20):
        draws = torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        made = from_table(
            Table("made", SPACE, (Column(name="valid", split="cost", values=scale * draws + shift),)), "valid"
        )
        order = draws.argsort(descending=True).tolist()
        row = row_of("scripted", made, measure(made, Scripted([order], 4), 1, 12, 0), [1.0])
        assert row.samples_to == {1.0: (12, 12, 12)}


def test_decisions_of_many_options_are_judged_by_what_was_evaluated():
    space = Decisions([Decision("a", tuple(f"o{i}" for i in range(300))), Decision("b", ("x", "y"))])
    columns = (Column(name="valid", split="cost", values=torch.arange(600).double()),)
    made = from_table(Table("wide", space, columns), "valid", ["valid"])
    course = measure(made, side_by_side([named("random_search")(space, 0)]), 1, 100, 0)
    assert torch.equal(course.observed, course.values)
    assert float(course.values.max()) > 2 * 256
    assert row_of("random_search", made, course, [1.0]).reported["valid"][100][0] == float(course.values.min())


def test_values_that_are_no_numbers_are_refused():
    made = dataclasses.replace(table(), observe=lambda h, generator: torch.full(h.shape[:2], math.nan).double())
    with pytest.raises(UsageError, match="values of made should be finite, got nan"):
        compare(made, ["random_search"], runs=2, budget=10)


def test_levels_that_print_alike_stay_two():
    done = compare(table(), ["random_search"], runs=2, budget=12, levels=[0.99999999, 1])
    assert list(done.json()[0]["samples_to"]) == ["0.99999999", "1"]


def test_json_is_plain():
    done = compare(table(), ["local_search:starts=2", "ppo"], runs=2, budget=11, levels=[0.5])
    rows = json.loads(json.dumps(done.json(), allow_nan=False))
    assert [set(row) for row in rows] == [
        {"recipe", "runs", "budget", "samples_to", "regret", "reported", "seconds_per_sample"}
    ] * 2
    assert rows[0]["recipe"] == "local_search:starts=2"
    assert list(rows[0]["regret"]) == ["10", "11"]
    assert list(rows[0]["samples_to"]) == ["0.5"]
    assert len(rows[0]["reported"]["test"]["11"]) == 2
