"""Covariance of activations that come a batch at a time: what is kept is one matrix, however many tokens there are."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch


class Covariance:
    """Of vectors of `width` numbers. Sums are in double precision, since the mean of a channel may be a thousand times its deviation."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._products = torch.zeros((width, width), dtype=torch.float64, device=device)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._n = 0

    def add(self, vectors: Torch) -> None:
        """Count `vectors` `(..., width)`."""
        rows = vectors.reshape(-1, len(self._sum)).double()
        self._products += rows.T @ rows
        self._sum += rows.sum(dim=0)
        self._n += len(rows)

    def matrix(self) -> NDArray[np.float64]:
        """The covariance `(width, width)` of all that was counted."""
        mean = self._sum / self._n
        covariance: NDArray[np.float64] = (self._products / self._n - torch.outer(mean, mean)).cpu().numpy()
        return covariance


def size_bytes(width: int) -> int:
    """Bytes that a `Covariance` of that width takes."""
    return 8 * width * (width + 1)


def correlation(covariance: NDArray[np.float64], deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """A covariance `(width, width)` in units of `deviations` `(width,)`; a channel that does not vary is left in its own."""
    scale = np.where(deviations > 0, deviations, 1.0)
    scaled: NDArray[np.float64] = covariance / np.outer(scale, scale)
    return scaled
