"""A Cholesky factor that always exists."""

from __future__ import annotations

import torch
from torch import Tensor

from archgrad.errors import UsageError


def cholesky(covariance: Tensor) -> Tensor:
    """Lower Cholesky factor, with as much more on the diagonal as rounding asks for."""
    if not bool(torch.isfinite(covariance).all()):
        raise UsageError("a covariance should be finite, got nan or inf; are all values of f finite?")
    jitter = 0.0
    while True:
        added = covariance + jitter * torch.eye(len(covariance), dtype=covariance.dtype)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(added)
        if not int(failed):
            return factor
        jitter = max(10 * jitter, 1e-10 * float(covariance.diagonal().mean()))
