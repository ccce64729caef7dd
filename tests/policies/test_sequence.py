"""The fast functions are the plain ones; runs in blocks are runs together."""

import pytest
import torch

from archgrad import Autoregressive
from archgrad.policies import Transformer
from archgrad.policies.blocks import RUNS, SAMPLES, blocks
from archgrad.policies.sequence import gumbel, hard, log_softmax, vertex
from archgrad.testing import conditional_space
from tests.policies.test_policies import scrambled


def logits(*shape, dtype=torch.float64):
    return 3 * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (7, 1, 6, 5)])
def test_log_softmax_is_pytorchs_with_its_derivatives(shape):
    z = logits(*shape).requires_grad_()
    assert torch.allclose(log_softmax(z), z.log_softmax(-1), atol=1e-14)
    assert torch.autograd.gradcheck(log_softmax, z)
    assert torch.autograd.gradgradcheck(log_softmax, z)


def test_log_softmax_of_choices_that_do_not_exist():
    z = torch.tensor([[1.0, 2.0, -torch.inf], [0.0, -torch.inf, -torch.inf]])
    assert torch.equal(log_softmax(z), z.log_softmax(-1))


@pytest.mark.parametrize("rows", [3, 5000])
def test_a_vertex_is_the_first_of_the_largest(rows):
    z = logits(rows, 2, 5, dtype=torch.float32)
    want = torch.nn.functional.one_hot(z.argmax(-1), 5).float()
    assert torch.equal(vertex(z), want)
    assert torch.equal(vertex(z.movedim(-1, 0).contiguous().movedim(0, -1)), want), "in any layout"
    z[1, 0] = torch.tensor([0.0, 4.0, 4.0, 1.0, 4.0])
    z[2, 1] = -torch.inf
    z[2, 1, 3] = 0.0
    assert torch.equal(vertex(z), torch.nn.functional.one_hot(z.argmax(-1), 5).float()), "also where two are equal"
    assert vertex(z)[1, 0].tolist() == [0, 1, 0, 0, 0]


def test_gumbel_leaves_its_noise_alone_and_has_a_derivative():
    u = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gumbel, u)
    assert u.tolist() == [0.2, 0.5, 0.9]


@pytest.mark.parametrize("make", [Autoregressive, Transformer])
@pytest.mark.parametrize("runs", [(7,), (7, 2)])
def test_runs_in_blocks_are_runs_together(make, runs):
    policy = scrambled(make(conditional_space(), runs=runs, hidden=4).double())
    n = SAMPLES // 3  # blocks of three runs
    noise = torch.rand(*runs, n, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert [part.runs for part, _ in blocks(policy, n)] == [(3, *runs[1:]), (3, *runs[1:]), (1, *runs[1:])]
        in_blocks = policy.conditionals(policy.sample(n, noise=noise))
    h = policy.relax(noise, hard)
    assert torch.equal(h, policy.sample(n, noise=noise))
    together = policy.conditionals(h)
    assert torch.allclose(together, in_blocks, atol=1e-12)
    weights = noise[..., 0, 0] - 0.5
    want = torch.autograd.grad((weights * policy.log_prob(h)).sum(), list(policy.parameters()))
    for a, b in zip(policy.score(h, weights), want, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert policy.runs == runs, "a block is a view, not the policy itself"


def test_a_graph_and_few_runs_are_not_split():
    policy = Autoregressive(conditional_space(), runs=(RUNS + 1,), hidden=2)
    assert len(blocks(policy, 1)) == 1
    with torch.no_grad():
        assert len(blocks(policy, 1)) == 2
        assert len(blocks(Autoregressive(conditional_space(), hidden=2), 10**6)) == 1
