"""Searches side by side are searches alone."""

import pytest
import torch

from archgrad import UsageError
from archgrad.recipes import RECIPES, exponentiated_weights, local_search, nasnet, ppo, reinforce, zoph_le
from archgrad.records import Batch
from archgrad.searchers.each import Each
from archgrad.searchers.together import together, unlike
from archgrad.testing import conditional_space, plain_space

SPACES = [plain_space(3, 4, 2), conditional_space()]
MAKES = {
    "reinforce": reinforce,
    "published": lambda space, seed: reinforce(space, seed, baseline="moving-average", lr=0.04),
    "ppo": ppo,
    "exponentiated_weights": exponentiated_weights,
    "zoph_le": zoph_le,
    "nasnet": nasnet,
}


def value(h, r):
    table = torch.rand(*h.shape[-2:], generator=torch.Generator().manual_seed(r))
    return (h * table).sum((-2, -1))


@pytest.mark.parametrize("space", SPACES, ids=["ragged", "conditional"])
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_each_run_of_the_program_is_the_recipe_alone(make, space):
    """Given the same batches, through six updates; each run has a function and, for an LSTM, a start of its own."""
    alone = [make(space, r) for r in range(3)]
    many = together([make(space, r) for r in range(3)])
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        batch = many.propose(generator)
        values = torch.stack([value(batch.h[r], r) for r in range(3)])
        many.observe(batch, values)
        for r, recipe in enumerate(alone):
            recipe.observe(Batch(batch.h[r], {k: v[r] for k, v in batch.memo.items()}), values[r])
    for i, parameter in enumerate(many.policy.parameters()):
        for r, recipe in enumerate(alone):
            own = list(recipe.policy.parameters())[i]
            assert torch.allclose(parameter[r], own, atol=2e-5), f"parameter {i} of run {r}"
    moved = next(iter(many.policy.parameters()))
    assert not torch.allclose(moved[0], moved[1], atol=1e-3)


def test_the_originals_are_left_alone():
    recipes = [ppo(SPACES[0], r) for r in range(2)]
    many = together(recipes)
    batch = many.propose(torch.Generator().manual_seed(0))
    many.observe(batch, torch.rand(2, 10))
    assert not recipes[0].policy.alpha.any()
    assert many.policy.alpha.any()


def test_optimizers_keep_their_settings():
    recipes = [ppo(SPACES[0], r, lr=0.123) for r in range(2)]
    many = together(recipes)
    assert many.optimizer.defaults["lr"] == 0.123
    assert many.estimator is not recipes[0].estimator


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ([], "none"),
        ([ppo(SPACES[0]), reinforce(SPACES[0])], "estimators of two types, PPO and ScoreFunction"),
        ([ppo(SPACES[0]), ppo(SPACES[0], lr=0.5)], "two settings"),
        ([ppo(SPACES[0]), ppo(SPACES[0], entropy=0.5)], "two settings"),
        ([zoph_le(SPACES[0]), reinforce(SPACES[0])], "policies of two types"),
        ([ppo(SPACES[0]), ppo(plain_space(3, 4, 3))], "different shapes|two spaces"),
        ([ppo(plain_space(3, 4, 3)), ppo(plain_space(4, 3, 3))], "two spaces"),
        ([RECIPES["relax"](SPACES[0], 0), RECIPES["relax"](SPACES[0], 1)], "two settings"),
    ],
)
def test_what_does_not_go_together_is_refused(recipes, message):
    with pytest.raises(UsageError, match=message):
        together(recipes)


def test_recipes_that_have_stepped_are_refused():
    stepped = ppo(SPACES[0])
    stepped.observe(stepped.propose(torch.Generator()), torch.rand(10))
    assert "has stepped" in unlike([stepped])


def test_searchers_one_after_the_other_are_searchers_alone():
    space = plain_space(3, 4, 2)
    alone = [local_search(space, r, starts=3) for r in range(3)]
    many = Each([local_search(space, r, starts=3) for r in range(3)])
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        batch = many.propose(generator)
        values = torch.stack([value(batch.h[r], r) for r in range(3)])
        many.observe(batch, values)
        for r, search in enumerate(alone):
            search.observe(Batch(batch.h[r], {k: v[r] for k, v in batch.memo.items()}), values[r])
    assert many.state_dict() == {"searchers": [s.state_dict() for s in alone]}
    assert len({str(s.state_dict()) for s in alone}) == 3
    again = Each([local_search(space, r, starts=3) for r in range(3)])
    again.load_state_dict(many.state_dict())
    assert again.state_dict() == many.state_dict()
    assert many.marginals(generator).shape == (3, 3, 4)


def test_unequal_questions_side_by_side_are_refused():
    space = plain_space(3, 4, 2)
    with pytest.raises(UsageError, match=r"equally many architectures, got \[3, 4\]"):
        Each([local_search(space, starts=3), local_search(space, starts=4)]).propose(torch.Generator())
    with pytest.raises(UsageError, match="at least one searcher"):
        Each([])
