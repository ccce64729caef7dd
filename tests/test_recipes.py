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


@pytest.mark.parametrize(("name", "policy", "estimator"), COMPOSITIONS)
def test_parts(name, policy, estimator):
    made = recipe(name, SPACE, 0)
    assert (type(made.policy), type(made.estimator), made.name) == (policy, estimator, name)
    assert {id(p) for g in made.optimizer.param_groups for p in g["params"]} == {
        id(p) for p in made.policy.parameters()
    }


def test_the_seed_makes_the_lstm():
    a, b, c = (recipe("nasnet", SPACE, s).policy.start for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(("trials", "samples"), [(None, 10), (1000, 10), (20, 10), (8, 4), (5, 2), (1, 2)])
def test_a_small_budget_gets_small_batches(trials, samples):
    assert recipe("ppo", SPACE, 0, trials=trials).estimator.samples == samples


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="got 'renforce'; did you mean 'reinforce'"):
        recipe("renforce", SPACE)
    assert set(RECIPES) == {test[0] for test in COMPOSITIONS}


@pytest.mark.parametrize("name", RECIPES)
def test_a_search_of_a_space_with_a_default_starts_near_it(name):
    space = mlp((4,), 2)
    default = space.encode([space.default])[0]
    uniform = RECIPES[name](space, 0, near_default=None).policy.conditionals(default[None])[0]
    close = RECIPES[name](space, 0).policy.conditionals(default[None])[0]
    assert torch.allclose((close * default).sum(-1).exp(), torch.full((8,), 0.9), atol=1e-5)
    assert torch.allclose((uniform * default).sum(-1).exp(), torch.full((8,), 1 / 7), atol=1e-5)


def test_without_a_default_of_your_own_the_order_of_the_options_means_nothing():
    model = torch.nn.Sequential(Choice("c", {"a": torch.nn.Linear(3, 2), "b": torch.nn.Linear(3, 2)}))
    assert recipe("ppo", space_of(model)).policy.marginals().tolist() == [[0.5, 0.5]]
    given = recipe("ppo", space_of(model, default={"c": "b"})).policy.marginals()[0]
    assert given.tolist() == pytest.approx([0.1, 0.9])
