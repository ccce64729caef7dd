"""PPO: its first step is the score function's, later ones stop where the ratio leaves the trust region."""

import math

import pytest
import torch

from archgrad import PPO, Factorised, ScoreFunction, UsageError
from archgrad.testing import plain_space
from tests.estimators.test_score_function import POLICIES, curved


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_the_first_epoch_is_the_score_function(make, entropy):
    policy = make()
    ppo = PPO(6, entropy=entropy)
    batch = ppo.propose(policy, torch.Generator().manual_seed(3))
    values = curved(batch.h)
    want = ScoreFunction(6, standardise=True, entropy=entropy).gradient(policy, batch, values).gradient
    got = ppo.gradient(policy, batch, values)
    assert got.diagnostics["clipped"] == 0
    for a, b in zip(got.gradient, want, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_a_sample_gives_no_gradient_once_it_is_far_on_the_good_side():
    """One decision of two, moved so that p(a) doubles: a's good advantage is clipped, b's is not pulled further."""
    space = plain_space(2)
    policy = Factorised(space).double()
    ppo = PPO(2, clip=0.2, entropy=0.0)
    h = space.encode([("a",), ("b",)]).double()
    batch = type(ppo.propose(policy, torch.Generator()))(h, {"log_prob": torch.full((2,), math.log(0.5)).double()})
    good_a = torch.tensor([0.0, 1.0]).double()
    with torch.no_grad():
        policy.alpha.copy_(torch.tensor([[2.0, 0.0]]))  # p(a) = .88, ratio 1.76; p(b) = .12, ratio .24
    (g,) = ppo.gradient(policy, batch, good_a).gradient
    assert (g == 0).all()  # both ratios have moved in the wanted direction beyond the clip
    (g,) = ppo.gradient(policy, batch, 1 - good_a).gradient
    assert g[0, 0] > 0 > g[0, 1]  # the other way round the pessimistic bound keeps pulling back


def test_late_answers_use_the_probabilities_of_the_proposal():
    policy = POLICIES[0]()
    ppo = PPO(4, entropy=0.0)
    batch = ppo.propose(policy, torch.Generator().manual_seed(0))
    before = policy.log_prob(batch.h).detach()
    with torch.no_grad():
        policy.alpha.add_(torch.randn(policy.alpha.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(batch.memo["log_prob"], before)
    assert not batch.memo["log_prob"].requires_grad


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"samples": 1}, "at least 2"), ({"clip": 0}, "between 0 and 1"), ({"epochs": 0}, "at least 1")],
)
def test_impossible_settings_are_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        PPO(**arguments)
