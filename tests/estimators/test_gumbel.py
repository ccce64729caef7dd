"""Gumbel variables: z has the law it should, z~ given b is z given argmax z = b, and both are finite at the edges."""

import pytest
import torch
from scipy.stats import kstest

from archgrad.estimators.gumbel import conditional, perturbed, relaxed


def test_the_formula_of_the_papers():
    """z~_b = -log(-log v_b), z~_i = -log(-log v_i / p_i - log v_b), for moderate numbers where it is stable."""
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    v = torch.rand(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for k in range(3):
        b = torch.eye(3, dtype=torch.float64)[k].expand_as(v)
        want = -torch.log(-torch.log(v) / p - torch.log(v[:, k : k + 1]))
        want[:, k] = -torch.log(-torch.log(v[:, k]))
        assert torch.allclose(conditional(p.log().expand_as(v), b, v), want, atol=1e-12)


def test_conditional_then_marginal_is_the_unconditional_law():
    """b ~ p, z~ | b has the law of z: Kolmogorov-Smirnov on each coordinate and on a difference.

    40,000 draws, false alarm 1e-4 a test; a shift of .03 in one coordinate would be seen.
    """
    generator = torch.Generator().manual_seed(1)
    log_p = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).log()
    u, v = (torch.rand(40_000, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    b = torch.nn.functional.one_hot(perturbed(log_p, u).argmax(-1), 3).double()
    z = conditional(log_p.expand_as(v), b, v)
    assert torch.equal(z.argmax(-1), b.argmax(-1))
    for k in range(3):
        # z_k is a Gumbel at log p_k
        assert kstest(torch.exp(-torch.exp(-(z[:, k] - log_p[k]))).numpy(), "uniform").pvalue > 1e-4
    difference = torch.sigmoid(z[:, 0] - z[:, 2] - log_p[0] + log_p[2])  # logistic
    assert kstest(difference.numpy(), "uniform").pvalue > 1e-4


def test_gradient_of_the_conditional_sample():
    """d z~_i / d log p_i by finite differences, and 0 at the choice that was made."""
    log_p = torch.tensor([-2.0, -0.4, -1.4], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    v = torch.tensor([0.3, 0.8, 0.6], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: conditional(x, b, v), (log_p,))
    jacobian = torch.autograd.functional.jacobian(lambda x: conditional(x, b, v), log_p)
    assert (jacobian[1] == 0).all()
    assert jacobian[0, 0] > 0
    assert jacobian[2, 2] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_the_edges(dtype):
    """Tiny probabilities and uniforms of 0 and 1: no NaN, forwards or backwards."""
    log_p = torch.tensor([-200.0, 0.0, -torch.inf], dtype=dtype, requires_grad=True)
    for v in (0.0, 1.0, 0.5):
        for k in (0, 1):
            b = torch.eye(3, dtype=dtype)[k]
            z = conditional(log_p, b, torch.full((3,), v))
            assert torch.isfinite(z[:2]).all()
            assert z[2] == -torch.inf
            row = relaxed(z, 0.5)
            assert torch.isfinite(row).all()
            (g,) = torch.autograd.grad((row * torch.arange(3)).sum(), log_p)
            assert torch.isfinite(g).all()
