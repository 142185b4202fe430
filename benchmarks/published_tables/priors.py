"""Prior of the sensitivities of a model's tensors from their names, depth and shape and the model's family alone, learned on other models.

The logarithm of a sensitivity, less its model's median, is averaged over the tensors of the other models (Nadaraya, Theory of Probability and its
Applications 9, 1964): of the same role first, near in depth, and of kindred models. A role that no other model has gets the mean at its depth.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.published_tables.tables import Published, layer_of, role_within

_DEPTH = 0.05  # length of the kernel, as a share of the blocks
_OTHER_ROLE, _FAR = 1e-6, 1e-4  # weights beside those of the same role, and nearby
_OUTSIDE = 0.5  # depth of embedding and head; their roles tell them apart


def prior(models: tuple[Published, ...], model: int, kin: NDArray[np.float64], without: Sequence[int]) -> NDArray[np.float64]:
    """Return the prior log sensitivities of the measured tensors `(n_tensors,)` of `model` from all others but those `without`.

    `kin` `(n,)` is the kinship of the models to it.
    """
    roles, depths = _places(models[model])
    total, weight = np.zeros(len(roles)), np.zeros(len(roles))
    for other, published in enumerate(models):
        if other == model or other in without:
            continue
        other_roles, other_depths = _places(published)
        logs = np.log(list(published.singles.values()))
        same = np.where(roles[:, None] == other_roles, 1.0, _OTHER_ROLE)
        near = np.exp(-0.5 * ((depths[:, None] - other_depths) / _DEPTH) ** 2) + _FAR
        weights = kin[other] / len(logs) * same * near  # (n_tensors, n_others)
        total += weights @ (logs - np.median(logs))
        weight += weights.sum(axis=1)
    return total / weight


def by_size(model: Published) -> NDArray[np.float64]:
    """Return the logarithms of the numbers of weights of the measured tensors `(n_tensors,)`: larger is dearer."""
    return np.array([np.log(np.prod(model.shapes[name], dtype=np.float64)) for name in model.singles])


def _places(model: Published) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Return roles and depths, 0 to 1, of the measured tensors `(n_tensors,)`."""
    layers = np.array([layer_of(name) for name in model.singles])
    depths = np.where(layers < 0, _OUTSIDE, (layers + 0.5) / model.n_layers)
    return np.array([role_within(name) for name in model.singles]), depths
