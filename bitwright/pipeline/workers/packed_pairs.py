"""Packed tensors for workers: quantized by them a few rows at a time, kept in the run's folder, and sent to each worker that needs them.

Rows are quantized independently of each other by every codec, so pieces of a tensor have the bytes that they have in the whole, and where a tensor is
cut depends on its shape alone.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bitwright.compress import Bytes, Floats, PackedTensors, pieces_of
from bitwright.pipeline.workers.bench import Bench, Packed
from bitwright.pipeline.workers.shared import Shared
from bitwright.pipeline.workers.workers import Task, Workers
from bitwright.spaces import Absence, Choice, Format, Space, Tensor

Pair = tuple[Tensor, Format]


@dataclass(frozen=True, eq=False)
class PackedRows(Task[Bytes]):
    """Bytes `(n_bytes,)` of the rows `start:stop` of a tensor in a format."""

    importance: Shared[Mapping[str, Floats]]
    tensor: Tensor
    form: Format
    start: int
    stop: int

    place = -1

    @property
    def n_steps(self) -> int:
        """Weights of the rows."""
        return (self.stop - self.start) * self.tensor.shape[-1]

    def do(self, bench: Bench) -> Bytes:
        """Quantize the rows."""
        bench.swapper.restore()  # a source may read weights from the model
        return bench.levels(self.importance).encode_rows(self.tensor, self.form, start=self.start, stop=self.stop)


def shared_importance(workers: Workers, levels: PackedTensors) -> Shared[Mapping[str, Floats]]:
    """Return the importance matrix for workers."""
    found = hashlib.sha256()
    for name in sorted(levels.importance):
        found.update(name.encode() + np.ascontiguousarray(levels.importance[name]).tobytes())
    return workers.share(f"importance {found.hexdigest()}", lambda: dict(levels.importance))


def pairs_of(space: Space, choices: Iterable[Choice]) -> list[Pair]:
    """Return the tensors and formats of choices `(n_units,)` whose bytes must be quantized, each once."""
    found = {
        (tensor.name, space.formats[f].name): (tensor, space.formats[f])
        for choice in choices
        for unit, f in zip(space.units, choice, strict=True)
        for tensor in unit.tensors
    }
    return [pair for pair in found.values() if is_packed(*pair)]


def is_packed(tensor: Tensor, form: Format) -> bool:
    """Return whether a tensor in a format has bytes other than the source's."""
    return not isinstance(form, Absence) and form.name != tensor.stored


def pack(workers: Workers, levels: PackedTensors, pairs: Iterable[Pair]) -> None:
    """Have the pairs that the run's folder lacks quantized by workers, and store them there.

    Raises:
        ModelError: a format cannot store the weights of a tensor.
    """
    missing = [(tensor, form) for tensor, form in pairs if not levels.has(tensor, form)]
    if not missing:
        return
    importance = shared_importance(workers, levels)
    cut = [[PackedRows(importance, tensor, form, *piece) for piece in pieces_of(tensor)] for tensor, form in missing]
    found = workers.each([task for tasks in cut for task in tasks])
    for (tensor, form), tasks in zip(missing, cut, strict=True):
        levels.put(tensor, form, np.concatenate([next(found) for _ in tasks]))


def sent(workers: Workers, levels: PackedTensors, pairs: Iterable[Pair]) -> Packed:
    """Return the packed tensors of the pairs as workers may ask for them."""
    return {
        (tensor.name, form.name): workers.share(f"{levels.folder}/{tensor.name}.{form.name}", partial(_bytes, levels, tensor, form))
        for tensor, form in pairs
        if is_packed(tensor, form)
    }


def _bytes(levels: PackedTensors, tensor: Tensor, form: Format) -> Bytes:
    return np.asarray(levels.packed(tensor, form))
