"""One policy many times over."""

import pytest
import torch

from archgrad import Factorised
from archgrad.policies import replicated
from archgrad.testing import conditional_space
from tests.policies.test_policies import POLICIES, scrambled


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("runs", [(3,), (2, 2)])
def test_every_replica_is_the_policy(make, runs):
    policy = scrambled(make(conditional_space()).double())
    many = replicated(policy, *runs)
    assert many.runs == runs
    assert [n for n, _ in many.named_parameters()] == [n for n, _ in policy.named_parameters()]
    h = policy.space.enumerate().double()
    log_p = many.log_prob(h.expand(*runs, *h.shape))
    assert torch.allclose(log_p, policy.log_prob(h).expand(*runs, -1), atol=1e-12)
    (gradient, *_) = torch.autograd.grad(log_p.sum(), list(many.parameters()))
    assert (gradient != 0).flatten(len(runs)).any(-1).all(), "every replica has its own gradient"


def test_replicas_are_independent_of_each_other_and_of_the_policy():
    policy = scrambled(Factorised(conditional_space()))
    before = policy.alpha.detach().clone()
    many = replicated(policy, 2)
    with torch.no_grad():
        many.alpha[0] += 1
    assert torch.equal(many.alpha[1], before)
    assert torch.equal(policy.alpha, before)


def test_a_replica_of_replicas_leads_with_the_new_dimension():
    many = replicated(replicated(Factorised(conditional_space()), 3), 2)
    assert many.runs == (2, 3)
    assert many.sample(4, torch.Generator().manual_seed(0)).shape[:3] == (2, 3, 4)
