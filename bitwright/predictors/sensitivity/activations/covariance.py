"""Covariance of activations accumulated batch by batch, with memory independent of the number of tokens."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch


class Covariance:
    """Covariance of vectors `(width,)`. Sums are in double precision, since a channel's mean may be a thousand times its standard deviation."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._products = torch.zeros((width, width), dtype=torch.float64, device=device)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._n = 0

    def add(self, vectors: Torch) -> None:
        """Add `vectors` `(..., width)`."""
        rows = vectors.reshape(-1, len(self._sum)).double()
        self._products += rows.T @ rows
        self._sum += rows.sum(dim=0)
        self._n += len(rows)

    def matrix(self) -> NDArray[np.float64]:
        """Return the covariance `(width, width)` of all vectors added."""
        mean = self._sum / self._n
        covariance: NDArray[np.float64] = (self._products / self._n - torch.outer(mean, mean)).cpu().numpy()
        return covariance


def size_bytes(width: int) -> int:
    """Return the bytes of a `Covariance` of that width."""
    return 8 * width * (width + 1)


def correlation(covariance: NDArray[np.float64], deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide a covariance `(width, width)` by the standard deviations `deviations` `(width,)` of both channels; a constant channel is not scaled."""
    scale = np.where(deviations > 0, deviations, 1.0)
    scaled: NDArray[np.float64] = covariance / np.outer(scale, scale)
    return scaled
