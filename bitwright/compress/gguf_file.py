"""Read a GGUF file as a source and write one: metadata and tokenizer carried over, every tensor in the format that was asked for.

Layout: `docs/gguf.md` of the ggml repository, through the `gguf` package.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

from bitwright.compress.container import Recipe
from bitwright.compress.ggml import dequantize
from bitwright.compress.source import Bytes, Floats, KeyValue, Source
from bitwright.compress.temporary import replacing
from bitwright.errors import BrokenPromiseError, ModelError, OutputError
from bitwright.spaces import Tensor

ALIGNMENT = 32
_FILE_TYPE, _ALIGNMENT_KEY = "general.file_type", "general.alignment"
#: What `sound_reader` raises for a file that is not whole or not GGUF.
UNREADABLE = (OSError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError)
# The reader's and writer's own log lines repeat what is in the file.
logging.getLogger("gguf").setLevel(logging.WARNING)


class GgufSource(Source):
    """A GGUF file of any float or quantized type, memory-mapped.

    Raises:
        ModelError: no such file, not GGUF, truncated, or one part of a split file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelError(f"MODEL must be a GGUF file, a model folder or a hub name; there is no file {path}: check the path.")
        try:
            reader = sound_reader(path)
            tensors = {str(t.name): t.data.reshape(-1).view(np.uint8) for t in reader.tensors}
            self.metadata = tuple(_key_values(reader))
        except UNREADABLE as error:
            raise ModelError(f"A GGUF file must be complete and readable; {path} is not ({error}): download or convert it again.") from error
        known = {entry.key: entry.value for entry in self.metadata}
        if "general.architecture" not in known or not tensors:
            raise ModelError(f"A model must name its architecture and hold tensors; {path} does not: choose another GGUF file.")
        if (parts := known.get("split.count", 1)) not in (0, 1):
            raise ModelError(f"A model must be one GGUF file (split.count 1); {path} is one of {parts}: merge them with `llama-gguf-split --merge`.")
        self.path, self.name, self.architecture = path, str(path), str(known["general.architecture"])
        self.tensors = tuple(_described(t.name, t.shape, t.tensor_type) for t in reader.tensors)
        self._data = tensors

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # nobody sets it
        """See `Source`; counted when it is asked for, since it takes reading everything."""
        return fingerprint(self.tensors, self.stored)

    def read(self, tensor: Tensor) -> Floats:
        """See `Source.read`."""
        return dequantize(self.stored(tensor), tensor.stored, (prod(tensor.shape[:-1]), tensor.shape[-1]))

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """See `Source.part`."""
        return dequantize(self.stored_part(tensor, expert), tensor.stored, (tensor.shape[1], tensor.shape[2]))

    def stored(self, tensor: Tensor) -> Bytes:
        """See `Source.stored`."""
        return self._data[tensor.name]


def sound_reader(path: Path) -> GGUFReader:
    """A reader of the file, held to what llama.cpp asks of one: tensors of some weights each, one after another, in this machine's byte order.

    Raises:
        one of UNREADABLE.
    """
    with np.errstate(over="raise"):
        reader = GGUFReader(path)
    if reader.byte_order == "S":
        raise ValueError("its byte order is the other one")
    end = reader.data_offset
    for tensor in reader.tensors:
        if not tensor.n_bytes or not len(tensor.shape):
            raise ValueError(f"{tensor.name} holds no weights")
        if tensor.data_offset != end:
            raise ValueError(f"{tensor.name} does not lie right behind the tensor before it")
        end += -(-tensor.n_bytes // int(reader.alignment)) * int(reader.alignment)
    return reader


def fingerprint(tensors: Iterable[Tensor], stored: Callable[[Tensor], Bytes]) -> str:
    """SHA-256 in hexadecimal over names, shapes, formats and contents."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.shape} {tensor.stored}\n".encode())
        digest.update(np.ascontiguousarray(stored(tensor)).data)
    return digest.hexdigest()


def header_bytes(source: Source, scratch: Path) -> int:
    """Bytes before the first tensor: metadata, tokenizer and the list of tensors, padded. They do not depend on the formats chosen.

    Counted on a header that is really written, to a temporary file in the folder `scratch`.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = scratch / ".header.gguf.part"
    try:
        with _opened(path, Recipe(source, {})):
            pass
        return _padded(path.stat().st_size)
    except OSError as error:
        raise OutputError(
            f"The folder {scratch} must be writable; it is not ({error.strerror or error}): choose another place or make room."
        ) from error
    finally:
        with suppress(OSError):
            path.unlink()


def fixed_bytes(source: Source, decided: Iterable[str], scratch: Path) -> int:
    """Bytes of the file that no choice changes: the header and every tensor whose name is not in `decided`, padding included."""
    names = set(decided)
    return header_bytes(source, scratch) + sum(_padded(source.stored_bytes(tensor)) for tensor in source.tensors if tensor.name not in names)


def write_gguf(path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> None:
    """Write the file to a temporary name beside `path`, then rename it.

    `packed` gives the bytes of a tensor of `recipe.formats` in its format; every other tensor is `recipe.kept`.

    Raises:
        OutputError: the folder cannot be written or the disk is full; nothing is left behind.
        BrokenPromiseError: what was read back is not what was to be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with _opened(temporary, recipe) as writer:
                for tensor in recipe.source.tensors:
                    data = packed(tensor) if tensor.name in recipe.formats else recipe.kept(tensor)
                    _require_size(tensor, data, recipe)
                    writer.write_tensor_data(data)
            _verify(temporary, recipe)
    except OSError as error:
        raise OutputError(
            f"The model must be writable to {path}; it is not ({error.strerror or error}): choose another place or make room."
        ) from error


def _require_size(tensor: Tensor, data: Bytes, recipe: Recipe) -> None:
    form = recipe.format_of(tensor)
    n_bytes = _stored_bytes(tensor, GGMLQuantizationType[form])
    if data.nbytes != n_bytes:
        raise BrokenPromiseError(
            f"{tensor.name} must take {n_bytes} bytes as {form}; it was given {data.nbytes}: nothing was kept, please report this."
        )


def _verify(path: Path, recipe: Recipe) -> None:
    found = {str(t.name): t.tensor_type.name for t in GGUFReader(path).tensors}
    wanted = {tensor.name: recipe.format_of(tensor) for tensor in recipe.source.tensors}
    wrong = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
    if wrong:
        raise BrokenPromiseError(f"Every tensor must be written as planned; {sorted(wrong)[0]} was not: nothing was kept, please report this.")


@contextmanager
def _opened(path: Path, recipe: Recipe) -> Iterator[GGUFWriter]:
    writer = GGUFWriter(path, recipe.source.architecture)
    writer.data_alignment = ALIGNMENT
    for entry in recipe.source.metadata:
        if entry.key not in {"general.architecture", _FILE_TYPE, _ALIGNMENT_KEY}:
            writer.add_key_value(entry.key, entry.value, entry.type, entry.item if entry.type is GGUFValueType.ARRAY else None)
    writer.add_file_type(_file_type(recipe))
    for tensor in recipe.source.tensors:
        kind = GGMLQuantizationType[recipe.format_of(tensor)]
        n_bytes = _stored_bytes(tensor, kind)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), n_bytes, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        yield writer
    finally:
        writer.close()


def _stored_bytes(tensor: Tensor, kind: GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return tensor.n_weights // block * block_bytes


def _file_type(recipe: Recipe) -> int:
    """llama.cpp's label for the whole file: the type that most weights have. It is only displayed."""
    weights: dict[str, int] = {}
    for tensor in recipe.source.tensors:
        form = recipe.format_of(tensor)
        weights[form] = weights.get(form, 0) + tensor.n_weights
    most = max(weights, key=lambda form: weights[form])
    return int(_LABELS.get(most, LlamaFileType.GUESSED))


def _key_values(reader: GGUFReader) -> Iterator[KeyValue]:
    for key, field in reader.fields.items():
        value = field.contents()
        if not key.startswith("GGUF.") and not (field.types[0] is GGUFValueType.ARRAY and not value):
            yield KeyValue(key, value, field.types[0], field.types[-1])


def _described(name: str, shape: Iterable[int], kind: GGMLQuantizationType) -> Tensor:
    return Tensor(str(name), tuple(int(n) for n in reversed(list(shape))), kind.name)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


_LABELS = {label.name.removeprefix("MOSTLY_"): label for label in LlamaFileType} | {
    "F32": LlamaFileType.ALL_F32,
    "Q2_K": LlamaFileType.MOSTLY_Q2_K,
    "Q3_K": LlamaFileType.MOSTLY_Q3_K_M,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_M,
    "Q5_K": LlamaFileType.MOSTLY_Q5_K_M,
}
