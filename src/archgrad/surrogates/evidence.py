"""Ridge regression whose strength is chosen by marginal likelihood."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(gram: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Dual weights (gram + s I)^-1 y and the log marginal likelihood of the best s, MacKay (1992).

    gram: inner products of features ``[n, n]``; y: centred values ``[n]``. The prior's scale v is at its maximum,
    y' (gram + s I)^-1 y / n, for every s of a grid of eight a decade; one eigendecomposition serves all. A fixed
    small s interpolates the noise where there are about as many features as points (double descent).
    """
    n = len(y)
    eigenvalues, vectors = torch.linalg.eigh(gram)
    eigenvalues = eigenvalues.clamp(min=0)
    projected = vectors.T @ y
    size = eigenvalues.mean().clamp(min=torch.finfo(gram.dtype).tiny)
    strengths = size * torch.logspace(-6, 4, 81, dtype=gram.dtype).unsqueeze(-1)
    spectrum = eigenvalues + strengths
    scale = (projected.square() / spectrum).mean(-1).clamp(min=torch.finfo(gram.dtype).tiny)
    likelihood = -(n * scale.log() + spectrum.log().sum(-1)) / 2
    best = int(likelihood.argmax())
    return vectors @ (projected / spectrum[best]), float(likelihood[best])
