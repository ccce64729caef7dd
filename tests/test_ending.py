"""Who is trained fully, who wins, and what is said of it."""

import dataclasses
import math

import pytest
import torch

from archgrad import Choice, ValidLoss, space_of
from archgrad.ending import Contest, Difference, contest, difference, final_jobs, finalists, sentence, verdict
from archgrad.problem import Problem
from archgrad.records import Job, Trial
from archgrad.testing import Separable


def layer(name):
    nn = torch.nn
    return Choice(name, {"skip": nn.Identity(), "tanh": nn.Tanh(), "linear": nn.Linear(3, 3)})


SPACE = space_of(torch.nn.Sequential(layer("a"), layer("b")), example=torch.rand(2, 3))
PROBLEM = Problem(SPACE, Separable(SPACE, torch.zeros(2, 3)), ValidLoss())


def trial(index, role, architecture, loss, seed=0, error=None):
    return Trial(
        Job(index, role, tuple(architecture.split()), seed, 1), {} if error else {"valid_loss": loss}, 0.1, error
    )


def test_finalists_are_the_best_of_each_side_without_the_default_twins_and_failures():
    trials = [
        trial(0, "default", "skip skip", 0.1),
        trial(1, "search", "skip skip", 0.1),  # the default has its own place
        trial(2, "search", "tanh skip", 0.2),
        trial(3, "search", "skip tanh", 0.3),  # the same network as tanh skip
        trial(4, "search", "linear skip", 0.4),
        trial(5, "search", "linear skip", 0.8),  # a second training: its mean is .6
        trial(6, "search", "linear tanh", 0.5),
        trial(7, "search", "tanh tanh", 0.0, error="broke"),
        trial(8, "random", "linear linear", 0.9),
        trial(9, "random", "tanh linear", 0.7),
        trial(10, "random", "linear tanh", 0.8),
    ]
    chosen = finalists(PROBLEM, SPACE, trials, few=2, mean=3, seed=0)
    assert chosen.found == (("tanh", "skip"), ("linear", "tanh"))
    assert chosen.random == (("tanh", "linear"), ("linear", "tanh"))
    assert chosen.default == ("skip", "skip")
    assert len(chosen.mean) == 3
    assert chosen == finalists(PROBLEM, SPACE, trials, few=2, mean=3, seed=0)


def test_every_finalist_is_trained_over_the_same_seeds_and_nobody_twice():
    trials = [
        trial(1, "search", "tanh skip", 0.2),
        trial(2, "random", "tanh skip", 0.2),
        trial(3, "random", "linear skip", 0.2),
    ]
    chosen = finalists(PROBLEM, SPACE, trials, few=2, mean=2, seed=0)
    jobs = final_jobs(chosen, first=10, epochs=5, seeds=3, seed=0)
    assert [j.index for j in jobs] == list(range(10, 10 + len(jobs)))
    assert {j.role for j in jobs} == {"final"}
    by = {}
    for j in jobs:
        by.setdefault(j.architecture, []).append(j.seed)
    full = {("tanh", "skip"), ("linear", "skip"), ("skip", "skip")}
    assert full <= by.keys()
    assert len({tuple(by[a]) for a in full}) == 1
    assert len(set(by["tanh", "skip"])) == 3
    assert all(len(by[a]) == 1 for a in by.keys() - full)
    assert len({j.save for j in jobs}) == len(jobs)


def finals(values):
    return [
        trial(100 + 10 * i + s, "final", a, v, seed=s)
        for i, (a, vs) in enumerate(values.items())
        for s, v in enumerate(vs)
    ]


CHOSEN = finalists(
    PROBLEM,
    SPACE,
    [
        trial(1, "search", "tanh skip", 0.2),
        trial(2, "search", "linear skip", 0.3),
        trial(3, "random", "linear tanh", 0.2),
    ],
    few=2,
    mean=1,
    seed=0,
)


@pytest.mark.parametrize(
    ("values", "winner", "words"),
    [
        (
            {
                "tanh skip": [0.10, 0.11, 0.12],
                "linear skip": [0.3] * 3,
                "linear tanh": [0.40, 0.41, 0.42],
                "skip skip": [0.5, 0.51, 0.52],
            },
            "found",
            [
                "The search beat a random search of as many trials",
                "The search beat the plain default network",
                "Handed over: the search's best",
            ],
        ),
        (
            {
                "tanh skip": [0.3] * 3,
                "linear skip": [0.1, 0.2, 0.3],
                "linear tanh": [0.1, 0.32, 0.2],
                "skip skip": [0.3, 0.1, 0.21],
            },
            "found",
            [
                "No difference beyond noise between the search and a random",
                "No difference beyond noise between the search and the plain",
            ],
        ),
        (
            {
                "tanh skip": [0.50, 0.51, 0.52],
                "linear skip": [0.6] * 3,
                "linear tanh": [0.30, 0.31, 0.32],
                "skip skip": [0.10, 0.11, 0.12],
            },
            "default",
            [
                "The search LOST to a random search",
                "The search LOST to the plain default",
                "Handed over: the plain default network",
            ],
        ),
        (
            {
                "tanh skip": [0.50, 0.51, 0.52],
                "linear skip": [0.6] * 3,
                "linear tanh": [0.10, 0.11, 0.12],
                "skip skip": [0.7, 0.71, 0.72],
            },
            "random_search",
            [
                "The search LOST to a random search",
                "The search beat the plain",
                "Handed over: a random search of as many trials",
            ],
        ),
    ],
)
def test_won_no_difference_and_lost_are_said_in_words_and_the_better_is_handed_over(values, winner, words):
    outcome = contest(PROBLEM, CHOSEN, finals(values))
    assert outcome.winner == winner
    said = verdict(outcome)
    for want in words:
        assert any(s.startswith(want) for s in said), said


def test_the_searchs_best_is_the_best_on_full_training_not_on_the_proxy():
    outcome = contest(
        PROBLEM, CHOSEN, finals({"tanh skip": [0.4, 0.4], "linear skip": [0.2, 0.2], "skip skip": [0.9, 0.9]})
    )
    assert outcome.best["found"] == ("linear", "skip")


def test_a_tie_is_handed_to_the_plain_network():
    outcome = contest(PROBLEM, CHOSEN, finals({"tanh skip": [0.4, 0.4], "skip skip": [0.4, 0.4]}))
    assert outcome.winner == "default"


def test_the_same_network_from_both_searches_is_said_and_is_the_searchs():
    chosen = dataclasses.replace(CHOSEN, random=(("tanh", "skip"),))
    outcome = contest(PROBLEM, chosen, finals({"tanh skip": [0.1, 0.1], "skip skip": [0.4, 0.5]}))
    assert outcome.winner == "found"
    assert verdict(outcome)[0] == "The search and a random search of as many trials chose the same network."


def test_who_missed_a_seed_does_not_win_on_its_lucky_ones():
    rows = finals({"linear skip": [0.3, 0.3, 0.3], "skip skip": [0.31, 0.31, 0.31]})
    rows += [trial(500, "final", "tanh skip", 0.1, seed=0), trial(501, "final", "tanh skip", 0, seed=1, error="broke")]
    outcome = contest(PROBLEM, CHOSEN, rows)
    assert outcome.best["found"] == ("linear", "skip")


def test_the_default_under_another_name_is_no_finalist():
    space = space_of(torch.nn.Sequential(layer("a"), layer("b")), example=torch.rand(2, 3), default=("tanh", "skip"))
    problem = Problem(space, Separable(space, torch.zeros(2, 3)), ValidLoss())
    trials = [trial(1, "search", "skip tanh", 0.1), trial(2, "search", "linear skip", 0.2)]
    assert finalists(problem, space, trials, few=2, mean=1, seed=0).found == (("linear", "skip"),)


def test_failed_trainings_leave_the_rest_comparable():
    rows = [
        *finals({"tanh skip": [0.1, 0.2, 0.3], "skip skip": [0.2, 0.3, 0.4]}),
        trial(500, "final", "linear tanh", 0, error="broke"),
    ]
    outcome = contest(PROBLEM, CHOSEN, rows)
    assert "random_search" not in outcome.best
    assert any("the plain default" in s for s in verdict(outcome))
    assert contest(PROBLEM, CHOSEN, [rows[-1]]) is None


def test_the_interval_is_students():
    """Differences -1, -2, -3: mean -2, deviation 1, t(.975, 2) = 4.303, half width 4.303 / sqrt 3 = 2.484."""
    d = difference({0: 0.0, 1: 0.0, 2: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0, 9: 50.0})
    assert (d.mean, d.pairs) == (-2, 3)
    assert d.half == pytest.approx(2.484, abs=1e-3)
    assert d.outcome == "no difference"
    assert difference({0: 1.0}, {0: 3.0}).outcome == "no difference"
    assert math.isnan(difference({}, {0: 1.0}).mean)


@pytest.mark.parametrize(("mean", "half", "outcome"), [(-1, 0.5, "won"), (-1, 2, "no difference"), (1, 0.5, "lost")])
def test_outcomes(mean, half, outcome):
    d = Difference(mean, half, 3)
    assert d.outcome == outcome
    assert f"{mean:+.4f} ± {half:.4f} (95% of 3 paired trainings)" in sentence(d, "it")


def test_nothing_found_is_said():
    outcome = Contest({"default": ("skip", "skip")}, {"default": {0: 0.3}}, "default", ())
    assert verdict(outcome)[0] == (
        "The search proposed nothing beside the plain default, or nothing that could be trained fully."
    )


def test_one_training_each_tells_nothing():
    said = sentence(difference({0: 0.1}, {0: 0.3}), "the plain default network")
    assert said == "One training of each cannot tell the search from the plain default network: objective -0.2000."
