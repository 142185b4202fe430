"""Importance matrix that was seen while a run's calibration text was sampled from the model, kept in the run beside the text."""

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Store
from bitwright.spaces import Tensor

_IMPORTANCE, _NAMES = "importance while sampling", "tensors of the importance while sampling"


def store_sampled_importance(store: Store, importance: Mapping[str, NDArray[np.float32]]) -> None:
    """Store the importance `(n_groups, n_columns)` by tensor, if there is any."""
    if importance:
        store.put_array(_IMPORTANCE, np.concatenate([values.reshape(-1) for values in importance.values()]))
        store.put_text(_NAMES, json.dumps(list(importance)))


def sampled_importance(store: Store, tensors: tuple[Tensor, ...]) -> dict[str, NDArray[np.float32]]:
    """Return the importance `(n_groups, n_columns)` by tensor that was seen while the run's text was sampled; empty if it was not."""
    if not store.has_text(_NAMES):
        return {}
    shapes = {tensor.name: (tensor.n_matrices, tensor.shape[-1]) for tensor in tensors}
    names: list[str] = json.loads(store.text(_NAMES))
    ends = np.cumsum([np.prod(shapes[name]) for name in names])
    parts = np.split(store.array(_IMPORTANCE).astype(np.float32), ends[:-1])
    return {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}
