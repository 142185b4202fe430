"""Kinship of models by what a file's header says: the roles of their matrices and their size."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.published_tables.tables import Published

_ROLES, _SIZE = 0.2, 2.0  # lengths: of the share of roles that differ, and of the logarithm of the ratio of weights
_OWN = 0.2  # share of what sets a model apart that even a sibling does not have
_SIBLING_SIZE = 0.25


def kinship(models: tuple[Published, ...]) -> NDArray[np.float64]:
    """Return the kinship of each pair `(n, n)`, a positive definite kernel: 1 for a model and itself, and for two models

    0.8 · exp(-(1 - |A ∩ B| / |A ∪ B|) / 0.2 - |log of the ratio of weights| / 2), A and B the sets of roles.
    """
    alike = np.exp(-(1 - _overlaps(models)) / _ROLES - _size_ratios(models) / _SIZE)
    return (1 - _OWN) * alike + _OWN * np.eye(len(models))


def siblings(models: tuple[Published, ...]) -> NDArray[np.bool_]:
    """Return which pairs `(n, n)` are releases of one architecture: the same roles, and sizes within a factor 1.28."""
    return (_overlaps(models) == 1) & (_size_ratios(models) < _SIBLING_SIZE)


def _overlaps(models: tuple[Published, ...]) -> NDArray[np.float64]:
    roles = [model.roles for model in models]
    return np.array([[len(a & b) / len(a | b) for b in roles] for a in roles])


def _size_ratios(models: tuple[Published, ...]) -> NDArray[np.float64]:
    sizes = np.log([model.n_weights for model in models])
    return np.abs(sizes[:, None] - sizes)
