"""Write a GGUF file: metadata and tokenizer carried over, every tensor in the format that was asked for.

Layout: `docs/gguf.md` of the ggml repository, through the `gguf` package.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType

from bitwright.compress import (
    ALIGNMENT,
    ALIGNMENT_KEY,
    FILE_TYPE_KEY,
    IMATRIX_KEYS,
    Bytes,
    KeyValue,
    Source,
    list_tensors,
    padded,
    type_bytes,
    written_bytes,
)
from bitwright.engines.container import Recipe
from bitwright.errors import BrokenPromiseError
from bitwright.spaces import Tensor
from bitwright.whole_files import atomic_write, beside, output_errors, require_size


@dataclass(frozen=True)
class FilePart:
    """Part of a GGUF file: its tensors, its own metadata, and whether it carries the model's."""

    tensors: tuple[Tensor, ...]
    entries: tuple[KeyValue, ...] = ()
    carries_metadata: bool = True


def header_bytes(source: Source, scratch: Path) -> int:
    """Bytes before the first tensor: metadata, tokenizer and the list of tensors, padded. They do not depend on the formats chosen.

    Counted on a header that is really written, to a temporary file in the folder `scratch`.

    Raises:
        OutputError: the folder cannot be written.
    """
    return padded(unpadded_header_bytes(source, scratch))


def unpadded_header_bytes(source: Source, scratch: Path) -> int:
    """Return `header_bytes` without the padding."""
    with output_errors(scratch), beside(scratch / "header.gguf") as path:
        with _opened(path, Recipe(source, {}), FilePart(source.tensors)):
            pass
        return path.stat().st_size


def fixed_bytes(source: Source, decided: Iterable[str], scratch: Path) -> int:
    """Bytes of the file that no choice changes: the header and every tensor whose name is not in `decided`, padding included."""
    names = set(decided)
    return header_bytes(source, scratch) + sum(padded(source.stored_bytes(tensor)) for tensor in source.tensors if tensor.name not in names)


def write_gguf(path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> None:
    """Write the file to a temporary name beside `path`, then rename it.

    `packed` gives the bytes of a tensor of `recipe.formats` in its format; every other tensor is `recipe.kept`.

    Raises:
        OutputError: the folder cannot be written or the disk is full; nothing is left behind.
        BrokenPromiseError: what was read back is not what was to be written.
    """
    with atomic_write(path) as temporary:
        write_tensors(temporary, recipe, packed)


def write_tensors(path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> None:
    """Write the file to `path` itself, which is nobody's yet, and read it back; see `write_gguf`.

    Raises:
        OSError: the folder cannot be written or the disk is full.
        BrokenPromiseError: what was read back is not what was to be written.
    """
    write_part(path, recipe, packed, FilePart(recipe.source.tensors))


def write_part(path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes], part: FilePart) -> None:
    """Write a part of the file, or all of it, to `path`, and read it back; see `write_tensors`."""
    with _opened(path, recipe, part) as writer:
        for tensor in part.tensors:
            data = packed(tensor) if tensor.name in recipe.formats else recipe.kept(tensor)
            _require_planned(tensor, data, recipe)
            writer.write_tensor_data(data)
    require_size(path, written_bytes(path))
    _verify(path, recipe, part)


def _require_planned(tensor: Tensor, data: Bytes, recipe: Recipe) -> None:
    form = recipe.format_of(tensor)
    n_bytes = recipe_bytes(recipe, tensor)
    if data.nbytes != n_bytes:
        raise BrokenPromiseError(
            f"{tensor.name} must take {n_bytes} bytes as {form}; it was given {data.nbytes}: nothing was kept, please report this."
        )


def recipe_bytes(recipe: Recipe, tensor: Tensor) -> int:
    """Return the bytes of a tensor as it is written, without padding."""
    return type_bytes(tensor, GGMLQuantizationType[recipe.format_of(tensor)])


def _verify(path: Path, recipe: Recipe, part: FilePart) -> None:
    found = {tensor.name: tensor.kind.name for tensor in list_tensors(path)[1]}
    wanted = {tensor.name: recipe.format_of(tensor) for tensor in part.tensors}
    wrong = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
    if wrong:
        raise BrokenPromiseError(f"Every tensor must be written as planned; {sorted(wrong)[0]} was not: nothing was kept, please report this.")


@contextmanager
def _opened(path: Path, recipe: Recipe, part: FilePart) -> Iterator[GGUFWriter]:
    writer = GGUFWriter(path, recipe.source.architecture)
    writer.data_alignment = ALIGNMENT
    if part.carries_metadata:
        for entry in recipe.source.metadata:
            if entry.key not in {"general.architecture", FILE_TYPE_KEY, ALIGNMENT_KEY} and not entry.key.startswith(IMATRIX_KEYS):
                writer.add_key_value(entry.key, entry.value, entry.type, entry.item if entry.type is GGUFValueType.ARRAY else None)
        writer.add_file_type(_file_type(recipe))
    else:
        writer.kv_data[0].clear()  # the architecture, which other parts of a file do not repeat
    for entry in part.entries:
        writer.add_key_value(entry.key, entry.value, entry.type)
    for tensor in part.tensors:
        kind = GGMLQuantizationType[recipe.format_of(tensor)]
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), recipe_bytes(recipe, tensor), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        yield writer
    finally:
        writer.close()


def _file_type(recipe: Recipe) -> int:
    """llama.cpp's label for the whole file: the type that most weights have. It is only displayed."""
    weights: dict[str, int] = {}
    for tensor in recipe.source.tensors:
        form = recipe.format_of(tensor)
        weights[form] = weights.get(form, 0) + tensor.n_weights
    most = max(weights, key=lambda form: weights[form])
    return int(_LABELS.get(most, LlamaFileType.GUESSED))


_LABELS = {label.name.removeprefix("MOSTLY_"): label for label in LlamaFileType} | {
    "F32": LlamaFileType.ALL_F32,
    "Q2_K": LlamaFileType.MOSTLY_Q2_K,
    "Q3_K": LlamaFileType.MOSTLY_Q3_K_M,
    "Q4_K": LlamaFileType.MOSTLY_Q4_K_M,
    "Q5_K": LlamaFileType.MOSTLY_Q5_K_M,
}
