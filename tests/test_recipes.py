"""Recipes are compositions; a small budget still moves alpha."""

import pytest
import torch

from archgrad import (
    PPO,
    Autoregressive,
    Choice,
    DoublyRobust,
    Factorised,
    NaturalGradient,
    Relax,
    ScoreFunction,
    UsageError,
    mlp,
    space_of,
)
from archgrad.recipes import RECIPES, recipe
from archgrad.searchers import Frugal
from archgrad.searchers.evolution import RegularisedEvolution
from archgrad.searchers.local_search import LocalSearch
from archgrad.searchers.random_search import RandomSearch
from archgrad.testing import plain_space

SPACE = plain_space(3, 2)


COMPOSITIONS = [
    ("ppo", Factorised, PPO),
    ("reinforce", Factorised, ScoreFunction),
    ("nasnet", Autoregressive, PPO),
    ("zoph_le", Autoregressive, ScoreFunction),
    ("relax", Factorised, Relax),
    ("doubly_robust", Factorised, DoublyRobust),
    ("exponentiated_weights", Factorised, NaturalGradient),
]
WALKING = {
    "frugal": Frugal,
    "random_search": RandomSearch,
    "local_search": LocalSearch,
    "regularised_evolution": RegularisedEvolution,
}


@pytest.mark.parametrize(("name", "policy", "estimator"), COMPOSITIONS)
def test_parts(name, policy, estimator):
    made = recipe(name, SPACE, 0)
    assert (type(made.policy), type(made.estimator), made.name) == (policy, estimator, name)
    assert {id(p) for g in made.optimizer.param_groups for p in g["params"]} == {
        id(p) for p in made.policy.parameters()
    }


@pytest.mark.parametrize(("name", "kind"), WALKING.items())
def test_searchers_without_a_gradient(name, kind):
    made = recipe(name, SPACE, 0)
    assert (type(made), made.name) == (kind, name)


def test_reinforce_as_published():
    made = RECIPES["reinforce"](SPACE, baseline="moving-average").estimator
    assert (made.baseline, made.standardise, made.entropy, made.samples) == ("moving-average", False, 0.0, 10)
    usual = RECIPES["reinforce"](SPACE).estimator
    assert (usual.baseline, usual.standardise, usual.entropy) == ("leave-one-out", True, 0.03)
    assert RECIPES["reinforce"](SPACE, baseline="moving-average", entropy=0.2).estimator.entropy == 0.2
    assert RECIPES["reinforce"](SPACE, entropy=0.0).estimator.entropy == 0


def test_the_seed_makes_the_lstm():
    a, b, c = (recipe("nasnet", SPACE, s).policy.start for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(("trials", "samples"), [(None, 10), (1000, 10), (20, 10), (8, 4), (5, 2), (1, 2)])
def test_a_small_budget_gets_small_batches(trials, samples):
    assert recipe("ppo", SPACE, 0, trials=trials).estimator.samples == samples


def test_a_small_budget_leaves_alone_what_has_no_batches():
    assert recipe("random_search", SPACE, 0, trials=5).samples == 2
    assert recipe("local_search", SPACE, 0, trials=6).starts == 2
    assert recipe("local_search", SPACE, 0, trials=100).starts == 10
    small, usual = (recipe("regularised_evolution", SPACE, 0, trials=n) for n in (30, 150))
    assert (small.size, small.tournament) == (10, 5)
    assert (usual.size, usual.tournament) == (50, 25)


@pytest.mark.parametrize(("trials", "initial"), [(None, 20), (100, 20), (30, 10), (9, 3), (2, 2)])
def test_a_small_budget_leaves_two_thirds_to_the_model(trials, initial):
    assert recipe("frugal", plain_space(*[2] * 20), 0, trials=trials).initial == initial


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="got 'renforce'; did you mean 'reinforce'"):
        recipe("renforce", SPACE)
    assert set(RECIPES) == {test[0] for test in COMPOSITIONS} | set(WALKING)


@pytest.mark.parametrize("name", [test[0] for test in COMPOSITIONS])
def test_a_search_of_a_space_with_a_default_starts_near_it(name):
    space = mlp((4,), 2)
    default = space.encode([space.default])[0]
    uniform = RECIPES[name](space, 0, near_default=None).policy.conditionals(default[None])[0]
    close = RECIPES[name](space, 0).policy.conditionals(default[None])[0]
    assert torch.allclose((close * default).sum(-1).exp(), torch.full((8,), 0.9), atol=1e-5)
    assert torch.allclose((uniform * default).sum(-1).exp(), torch.full((8,), 1 / 7), atol=1e-5)


@pytest.mark.parametrize("name", ["local_search", "regularised_evolution"])
def test_what_walks_begins_near_the_default_too(name):
    space = mlp((4,), 2)
    default = space.encode([space.default])[0]
    some = torch.Generator()
    close, uniform = (RECIPES[name](space, 0, near_default=p).marginals(some) for p in (0.9, None))
    assert torch.allclose((close * default).sum(-1), torch.full((8,), 0.9), atol=1e-5)
    assert torch.allclose((uniform * default).sum(-1), torch.full((8,), 1 / 7), atol=1e-5)


def test_without_a_default_of_your_own_the_order_of_the_options_means_nothing():
    model = torch.nn.Sequential(Choice("c", {"a": torch.nn.Linear(3, 2), "b": torch.nn.Linear(3, 2)}))
    assert recipe("ppo", space_of(model)).policy.marginals().tolist() == [[0.5, 0.5]]
    given = recipe("ppo", space_of(model, default={"c": "b"})).policy.marginals()[0]
    assert given.tolist() == pytest.approx([0.1, 0.9])
