"""Packed checkpoint read back: the engine's tensors, in the formats they have there and with the weights that are computed with."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial
from math import prod
from pathlib import Path

import numpy as np
import torch

from bitwright.compress import (
    STORED_TYPES,
    Bytes,
    CheckpointEntry,
    CheckpointFiles,
    DroppedWeights,
    Floats,
    Source,
    Weights,
    fingerprint,
    matrix_shape,
    quantization_of,
    read_configuration,
    tensors_in,
    with_inputs,
)
from bitwright.engines.layout import Layout
from bitwright.errors import ModelError
from bitwright.spaces import DroppedExpert, Format, Tensor, expert_of


class CheckpointSource(Source):
    """Checkpoint in a folder, of a model whose `home` is known. Norms are read as the module has them.

    `checkpoint_entries` are the tensors on disk by the engine's name, and `forms` the format of each by its name: that of a packed layer or a float.
    """

    def __init__(self, folder: Path, home: CheckpointFiles, layout: Layout) -> None:
        """Read the configuration and the heads of all shards.

        Raises:
            ModelError: it is not whole, or is not written as `layout` has it.
        """
        self.name, self.architecture, self.metadata = str(folder), "", ()
        self.home, self._layout = home, layout
        self._entries = tensors_in(folder)
        self._form_of = layout.reader(_settings(folder))
        self.checkpoint_entries = {tensor.name: list(home.checkpoint_entries((tensor,))) for tensor in home.tensors}
        self.forms = {slot.name: self._form(slot) for of_tensor in self.checkpoint_entries.values() for slot in of_tensor}
        self.tensors = tuple(Tensor(tensor.name, tensor.shape, self._stored(tensor)) for tensor in home.tensors)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # nobody sets it
        """Fingerprint over all tensors, computed on first access, which reads every file."""
        return fingerprint(self.tensors, self.stored)

    def read(self, tensor: Tensor) -> Floats:
        """Read a tensor as float32 `(n_rows, n_columns)`; the experts of a stack, stored one by one, are joined."""
        parts = [self.weights_of(slot) for slot in self.checkpoint_entries[tensor.name]]
        return (np.concatenate(parts) if len(parts) > 1 else parts[0]).reshape(prod(tensor.shape[:-1]), tensor.shape[-1])

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)` of a tensor, rows in engine order."""
        parts = [self._rows(slot) for slot in self.checkpoint_entries[tensor.name]]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Read one expert of a stack as float32 `(n_rows, n_columns)`; the others are not read."""
        return self.weights_of(self.checkpoint_entries[tensor.name][expert])

    def weights_of(self, slot: CheckpointEntry) -> Floats:
        """Return the weights of one tensor on disk, dequantized: float32 `(n_rows, n_columns)`, rows in engine order; a vector is a column."""
        form, rows = self.forms[slot.name], self._rows(slot)
        if isinstance(form, Format):
            return self._layout.codec.decode(rows, form, slot.matrix)
        floats: Floats = torch.from_numpy(rows).view(STORED_TYPES[form]).float().reshape(slot.shape[0] if slot.shape else 1, -1).numpy()
        return floats

    def arrays(self, slot: CheckpointEntry) -> Mapping[str, Bytes]:
        """Return the bytes of a packed layer's tensors."""
        parts = self._layout.described(_packed(self.forms[slot.name]), slot.matrix)
        return {part: self._whole(f"{slot.layer}.{part}") for part in parts}

    def _rows(self, slot: CheckpointEntry) -> Bytes:
        form = self.forms[slot.name]
        data = self._layout.packed(self.arrays(slot), form, slot.matrix) if isinstance(form, Format) else self._whole(slot.name)
        if slot.piece.is_plain:
            return data
        shared = form.shared_bytes(slot.matrix[1]) if isinstance(form, Format) else 0
        ordered = data[: len(data) - shared].reshape(slot.shape[0], -1)[slot.piece.order() - slot.piece.start].reshape(-1)
        return np.concatenate([ordered, data[len(data) - shared :]])

    def _whole(self, name: str) -> Bytes:
        entry = self._entries[name]
        return entry.read(0, entry.n_weights)

    def _form(self, slot: CheckpointEntry) -> Format | str:
        """Return the format of a packed layer, or the type of one kept as floats.

        Raises:
            ModelError: the layer is missing, or its tensors are not those of the format that the configuration names.
        """
        if slot.name in self._entries and self._entries[slot.name].dtype in STORED_TYPES:
            expected = {slot.name: (self._entries[slot.name].dtype, slot.shape)}
            form: Format | str = self._entries[slot.name].dtype
        else:
            form = self._form_of(slot.layer)
            expected = {f"{slot.layer}.{part}": described for part, described in self._layout.described(form, slot.matrix).items()}
        for name, described in expected.items():
            if name not in self._entries or (self._entries[name].dtype, self._entries[name].shape) != described:
                raise ModelError(
                    f"A checkpoint must hold every layer as its configuration says; {self.name} lacks {name} as {described[0]} "
                    f"{'×'.join(map(str, described[1]))}: build it again."
                )
        return form

    def _stored(self, tensor: Tensor) -> str:
        found = {form if isinstance(form, str) else form.name for form in (self.forms[slot.name] for slot in self.checkpoint_entries[tensor.name])}
        if len(found) > 1:
            raise ModelError(
                f"The experts of a block must be in one format here; those of {tensor.name} are in {' and '.join(sorted(found))}: build the "
                "checkpoint again."
            )
        return found.pop()


def written_weights(written: CheckpointSource, names: Collection[str]) -> Weights:
    """Return the weights that a checkpoint computes with, for the tensors `names`; dropped experts have those of their replacements."""
    found: dict[str, Callable[[], Floats]] = {}
    for tensor in written.tensors:
        form = written.forms[written.checkpoint_entries[tensor.name][0].name]
        if tensor.name in names and isinstance(form, DroppedExpert):
            found[tensor.name] = DroppedWeights(matrix_shape(tensor), expert_of(tensor.name), form.replacement)
        elif tensor.name in names:
            found[tensor.name] = with_inputs(form, partial(written.read, tensor))
    return found


def _packed(form: Format | str) -> Format:
    if isinstance(form, str):
        raise ValueError(f"{form} is no packed format")
    return form


def _settings(folder: Path) -> Mapping[str, object]:
    read_configuration(folder)
    return quantization_of(folder)
