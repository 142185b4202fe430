"""Importance matrices in llama.cpp's file formats: GGUF, read and written, and the older `.dat`, read.

Both hold, for each weight matrix, the sum of squared activations of every input channel and the number of tokens in it, per expert
(`tools/imatrix` of llama.cpp).
"""

import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from bitwright.compress.models.gguf.reader import UNREADABLE, sound_reader, written_bytes
from bitwright.compress.models.source import Floats
from bitwright.errors import ModelError, shown
from bitwright.spaces import Tensor
from bitwright.whole_files import regular, replacing, require_size

_SUMS, _COUNTS = ".in_sum2", ".counts"
_UNREADABLE = (*UNREADABLE, struct.error)


def write_imatrix(path: Path, importance: Mapping[str, Floats], *, text: str) -> None:
    """Write mean squared activations `(n_groups, n_columns)` by tensor name, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        writer = GGUFWriter(temporary, "imatrix")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [text])
        writer.add_uint32("imatrix.chunk_count", 1)
        writer.add_uint32("imatrix.chunk_size", 1)
        for name, means in importance.items():
            writer.add_tensor(name + _SUMS, np.ascontiguousarray(means, dtype=np.float32))
            writer.add_tensor(name + _COUNTS, np.ones((len(means), 1), dtype=np.float32))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        require_size(temporary, written_bytes(temporary))


def read_imatrix(path: Path, tensors: tuple[Tensor, ...]) -> dict[str, Floats]:
    """Read mean squared activations `(n_groups, n_columns)` of those of `tensors` that the file contains.

    Raises:
        ModelError: no such file, not an importance matrix, made for another model, or values that are not finite.
    """
    try:
        with regular(path).open("rb") as file, np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused below
            entries = dict(_from_gguf(path) if file.read(4) == b"GGUF" else _from_dat(path))
    except _UNREADABLE as error:
        why = shown(error, 200)
        raise ModelError(f"An importance matrix must be a file of llama.cpp's imatrix tool; {path} is not ({why}): make it again.") from error
    found = {}
    for tensor in tensors:
        if tensor.name in entries:
            values = entries[tensor.name]
            n_channels = prod(tensor.shape[:-2]) * tensor.shape[-1]
            if values.size != n_channels:
                raise ModelError(
                    f"An importance matrix must hold one value for each input channel of each expert; {path} has {values.size} for {tensor.name}, "
                    f"which has {n_channels}: make it from this very model."
                )
            if not np.isfinite(values).all() or (values < 0).any():
                raise ModelError(f"An importance matrix must be finite and not negative; {path} is not for {tensor.name}: make it again.")
            found[tensor.name] = values.reshape(-1, tensor.shape[-1])
    if not found:
        raise ModelError(f"An importance matrix must name tensors of the model; {path} names none of them: make it from this very model.")
    return found


def _from_gguf(path: Path) -> Iterator[tuple[str, Floats]]:
    tensors = [tensor for tensor in sound_reader(path).tensors if tensor.name.endswith((_SUMS, _COUNTS))]
    if wrong := [tensor.name for tensor in tensors if tensor.tensor_type is not GGMLQuantizationType.F32]:
        raise ValueError(f"{wrong[0]} is not in F32")
    stored = {tensor.name: np.array(tensor.data) for tensor in tensors}
    for name, sums in stored.items():
        if name.endswith(_SUMS):
            counts = stored[name.removesuffix(_SUMS) + _COUNTS].reshape(-1, 1)
            yield name.removesuffix(_SUMS), _means(sums.reshape(len(counts), -1), counts)


def _from_dat(path: Path) -> Iterator[tuple[str, Floats]]:
    data, offset = path.read_bytes(), 4
    for _ in range(struct.unpack_from("<i", data)[0]):
        (length,) = struct.unpack_from("<i", data, offset)
        if length < 0:
            raise ValueError("a name has a negative length")
        name = data[offset + 4 : offset + 4 + length].decode()
        n_calls, n_values = struct.unpack_from("<ii", data, offset + 4 + length)
        if n_values < 0:
            raise ValueError(f"the entry '{name}' has a negative length")
        offset += 12 + length
        sums = np.frombuffer(data, dtype="<f4", count=n_values, offset=offset)
        yield name, _means(sums[None], np.array([[n_calls]], dtype=np.float32))
        offset += 4 * n_values


def _means(sums: Floats, counts: Floats) -> Floats:
    """Return means `(n_groups, n_columns)`; a group without tokens gets the mean of the others."""
    means = sums / np.maximum(counts, 1)
    reached = counts[:, 0] > 0
    if reached.any():
        means[~reached] = means[reached].mean(axis=0)
    return means.astype(np.float32)
