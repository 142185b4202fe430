"""Packed tensors of a model in any format: quantized once, stored on disk and dequantized on demand.

The folder is a cache: what a bound on its bytes removes is quantized again to the same bytes when it is needed.

The same bytes serve the error of a format, the gradient products, the measurement of a choice and the finished file, so none of them can
disagree with another. A tensor in the format in which the source stores it keeps the source's own bytes, which is lossless.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.codec import Codec
from bitwright.compress.codecs.disk_bound import DiskBound
from bitwright.compress.codecs.packed_file import read_packed, write_packed
from bitwright.compress.models.similar_experts import Expert, most_similar_experts
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.errors import ModelError, OutputError
from bitwright.spaces import Absence, Format, Tensor
from bitwright.whole_files import caching

#: weights of a piece of a tensor
PIECE_WEIGHTS = 1 << 23


def matrix_shape(tensor: Tensor) -> tuple[int, int]:
    """Return the shape of a tensor as a matrix `(n_rows, n_columns)`: all dimensions but the last are folded into rows."""
    return prod(tensor.shape[:-1]), tensor.shape[-1]


def pieces_of(tensor: Tensor) -> list[tuple[int, int]]:
    """Return the first row of each piece of a tensor and the row past its last; a piece lies within one matrix of a stack."""
    n_rows, n_columns = tensor.shape[-2:] if len(tensor.shape) > 1 else (1, tensor.shape[0])
    step, n_matrices = max(1, PIECE_WEIGHTS // n_columns), prod(tensor.shape[:-2])
    firsts = [m * n_rows for m in range(n_matrices)]
    return [(first + start, first + min(start + step, n_rows)) for first in firsts for start in range(0, n_rows, step)]


def packed_path(folder: Path, tensor: str, form: str) -> Path:
    """Return the path at which `PackedTensors` stores a tensor in a format."""
    return folder / f"{tensor}.{form}"


@dataclass(frozen=True, eq=False)
class PackedTensors:
    """Packed tensors of a model in `folder`, one file for each tensor and format.

    `importance` maps tensor names to `(n_groups, n_columns)`; a tensor missing from it is quantized without importance. `bound` limits the bytes of
    the folder, for a codec that can make them again.
    """

    folder: Path
    source: Source
    codec: Codec
    importance: Mapping[str, Floats]
    bound: DiskBound | None = None

    def knows_importance(self, tensor: Tensor) -> bool:
        """Return whether the importance of the tensor's input channels is known."""
        return tensor.name in self.importance

    def importance_of(self, tensor: Tensor) -> Floats:
        """Return the mean squared activation `(n_groups, n_columns)`, or `(0, n_columns)` if unknown."""
        return self.importance.get(tensor.name, np.empty((0, tensor.shape[-1]), dtype=np.float32))

    def packed(self, tensor: Tensor, form: Format) -> Bytes:
        """Return the tensor's bytes `(n_bytes,)` in `form`, read from disk, or quantized first if they are missing or were changed.

        Raises:
            OutputError: the folder cannot be written or read.
            RunError: the file is missing or was changed, and the codec cannot reproduce its bytes.
        """
        if isinstance(form, Absence):
            return np.empty(0, dtype=np.uint8)
        if form.name == tensor.stored:
            return self.source.stored(tensor)
        path = packed_path(self.folder, tensor.name, form.name)
        try:
            found = read_packed(path, key=path.name)
            if found is None:
                self.put(tensor, form, self.encode(tensor, form))
                found = read_packed(path, key=path.name)
        except OSError as error:
            raise OutputError(
                f"Packed tensors must be readable in {self.folder}; they are not ({error.strerror or error}): check its permissions and the disk."
            ) from error
        if found is None:
            raise OutputError(f"Packed tensors must be read as they were written to {self.folder}; {path.name} is not: choose another --out folder.")
        if self.bound is not None:
            self.bound.used(path)
        return found

    def has(self, tensor: Tensor, form: Format) -> bool:
        """Return whether the bytes of a tensor in `form` need no quantizing: they are on disk, the source's own, or none."""
        return isinstance(form, Absence) or form.name == tensor.stored or packed_path(self.folder, tensor.name, form.name).is_file()

    def put(self, tensor: Tensor, form: Format, packed: Bytes) -> None:
        """Store the tensor's bytes `(n_bytes,)` in `form`, quantized elsewhere.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = packed_path(self.folder, tensor.name, form.name)
        with caching(path) as temporary:
            write_packed(temporary, packed, key=path.name)
        if self.bound is not None:
            self.bound.made(path)

    def encode_rows(self, tensor: Tensor, form: Format, *, start: int, stop: int) -> Bytes:
        """Quantize rows `start:stop` of the tensor, within one matrix of a stack, to the bytes that they have in the whole.

        Raises:
            ModelError: see `encode`.
        """
        if len(tensor.shape) < 3:
            return self.codec.for_tensor(tensor.name).encode(self.source.some_rows(tensor, start, stop), form, self.importance_of(tensor))
        expert, first = divmod(start, tensor.shape[1])
        weights, importance = self.source.part(tensor, expert)[first : first + stop - start], self.importance_of(tensor)[expert : expert + 1]
        return self.codec.for_tensor(tensor.name, expert).encode(weights, form, importance)

    def encode(self, tensor: Tensor, form: Format) -> Bytes:
        """Quantize the tensor to the bytes `(n_bytes,)` of `form`, without reading or writing the folder.

        Raises:
            ModelError: the format cannot store its weights, or needs importance that is unknown.
        """
        if isinstance(form, Absence):
            return np.empty(0, dtype=np.uint8)
        if form.name == tensor.stored:
            return self.source.stored(tensor)
        try:
            return self._encoded(tensor, form)
        except ModelError as error:
            raise ModelError(f"{tensor.name} of {self.source.name} cannot be stored as {form.name}: {error}") from error

    def weights(self, tensor: Tensor, form: Format) -> Floats:
        """Dequantize the tensor to float32 `(n_rows, n_columns)`, the weights that the engine computes with."""
        return self.codec.decode(self.packed(tensor, form), form, matrix_shape(tensor))

    def rows(self, tensor: Tensor, form: Format, *, start: int, stop: int) -> Floats:
        """Dequantize rows `start:stop` only."""
        if form.shared_bytes(tensor.shape[-1]):
            return self.weights(tensor, form)[start:stop]
        n_rows, n_columns = matrix_shape(tensor)
        packed = self.packed(tensor, form).reshape(n_rows, -1)[start:stop]
        return self.codec.decode(packed.reshape(-1), form, (stop - start, n_columns))

    def some_rows(self, tensor: Tensor, form: Format, wanted: NDArray[np.int64]) -> Floats:
        """Dequantize the rows `wanted` `(n,)` only: `(n, n_columns)`."""
        if form.shared_bytes(tensor.shape[-1]):
            return self.weights(tensor, form)[wanted]
        n_rows, n_columns = matrix_shape(tensor)
        packed = self.packed(tensor, form).reshape(n_rows, -1)[wanted]
        return self.codec.decode(packed.reshape(-1), form, (len(wanted), n_columns))

    @cached_property
    def replacements(self) -> dict[Expert, int]:
        """Replacement of each expert when it is dropped: the most similar one of its layer, for experts that have one; see `most_similar_experts`.

        It is computed from the source on first access, which must happen while the model has its original weights.
        """
        return most_similar_experts(self.source)

    def keep(self, formats: Mapping[str, str]) -> None:
        """Remove all packed tensors but those of a plan of `formats` (tensor → format), where the folder is a cache."""
        if self.bound is not None:
            self.bound.keep(packed_path(self.folder, tensor, form) for tensor, form in formats.items())

    def _encoded(self, tensor: Tensor, form: Format) -> Bytes:
        importance = self.importance_of(tensor)
        if len(tensor.shape) < 3:
            if self.bound is not None and self.source.reads_rows and not form.shared_bytes(tensor.shape[-1]):
                return self._encoded_in_pieces(tensor, form)
            return self.codec.for_tensor(tensor.name).encode(self.source.read(tensor), form, importance)
        experts = range(tensor.shape[0])  # one at a time: a stack may be as large as all other tensors together
        codecs = (self.codec.for_tensor(tensor.name, expert) for expert in experts)
        return np.concatenate([c.encode(self.source.part(tensor, i), form, importance[i : i + 1]) for i, c in zip(experts, codecs, strict=True)])

    def _encoded_in_pieces(self, tensor: Tensor, form: Format) -> Bytes:
        """Quantize a matrix a few million weights at a time: an embedding may be as large as all blocks that a streamed model has in memory."""
        return np.concatenate([self.encode_rows(tensor, form, start=start, stop=stop).reshape(-1) for start, stop in pieces_of(tensor)])
