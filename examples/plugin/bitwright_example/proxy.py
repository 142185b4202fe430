"""Stable rank ‖W‖²_F / ‖W‖²₂ (Rudelson & Vershynin, 2007): a matrix whose energy is in many directions is harder to approximate."""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion
from bitwright.predictors import Passes, Proxy, Subject


def stable_ranks(subject: Subject) -> NDArray[np.float64]:
    """Return the mean stable rank of the tensors of each unit `(n_units,)`."""
    found = []
    for unit in subject.space.units:
        matrices = [subject.model.source.read(tensor).reshape(-1, tensor.shape[-1]) for tensor in unit.tensors]
        found.append(np.mean([(matrix**2).sum() / np.linalg.norm(matrix, 2) ** 2 for matrix in matrices]))
    return np.array(found)


def price(subject: Subject, distortion: Distortion) -> NDArray[np.float64]:
    """Return the table `(n_units, n_formats)`: relative weight errors times the stable rank."""
    return stable_ranks(subject)[:, None] * distortion.plain


STABLE_RANK = Proxy("stable-rank", "stable rank (an example)", lambda _: Passes(0, 0), price, stable_ranks)
