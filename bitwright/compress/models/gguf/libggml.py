"""Binding of libggml: load the library, quantize and dequantize with it, so that what is measured is bit for bit what ships.

The package `xllamacpp` brings a prebuilt llama.cpp; its shared object exports ggml's C interface (`ggml.h`), which is called here through
ctypes. A call releases the interpreter lock, so row blocks are quantized on all cores by ordinary threads.
"""

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType

from bitwright.compress.models.source import Bytes, Floats, require_size
from bitwright.errors import LibraryError, ModelError
from bitwright.spaces import Format

_PACKAGE = "xllamacpp"
_OLDEST = "2026.10.11549"
_SYMBOLS = ("ggml_quantize_chunk", "ggml_quantize_init", "ggml_quantize_requires_imatrix", "ggml_get_type_traits", "ggml_row_size")
_TO_FLOAT = _FROM_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
# Weights that one thread takes at a time: few where each is dear, so that no core idles at the end of a small tensor.
_ENCODED_AT_ONCE, _DECODED_AT_ONCE = 1 << 15, 1 << 18


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def library() -> ctypes.CDLL:
    """Return the shared object that holds libggml, checked and with its signatures declared.

    Raises:
        LibraryError: xllamacpp is missing, too old, or does not export what is needed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    version = importlib.metadata.version(_PACKAGE) if spec else "none"
    if not spec or not spec.submodule_search_locations or _numbers(version) < _numbers(_OLDEST):
        raise LibraryError(f"Quantizing needs {_PACKAGE} {_OLDEST} or newer; {version} is installed: run `pip install '{_PACKAGE}>={_OLDEST}'`.")
    folder = Path(spec.submodule_search_locations[0])
    shared = sorted(path for path in folder.glob(f"{_PACKAGE}.*") if path.suffix in {".so", ".pyd", ".dylib"})
    if not shared:
        raise LibraryError(f"{_PACKAGE} must bring a shared object; {folder} holds none: run `pip install --force-reinstall {_PACKAGE}`.")
    lib = ctypes.CDLL(str(shared[0]))
    missing = [name for name in _SYMBOLS if name not in _exported(lib)]
    if missing:
        raise LibraryError(f"{_PACKAGE} {version} must export {missing[0]} and does not: install version {_OLDEST}, which was tested.")
    return _declared(lib)


def row_size(form: str, n_columns: int) -> int:
    """Bytes of one row of `n_columns` weights in the ggml type called `form`."""
    return int(library().ggml_row_size(GGMLQuantizationType[form], n_columns))


def requires_importance(form: str) -> bool:
    """Return whether libggml refuses to quantize to this type without an importance matrix."""
    return bool(library().ggml_quantize_requires_imatrix(GGMLQuantizationType[form]))


def dequantize(packed: Bytes, form: str, shape: tuple[int, int]) -> Floats:
    """Float32 weights `(n_rows, n_columns)` of `packed` bytes in any ggml type, also those that a plan cannot choose.

    Raises:
        ModelError: libggml cannot read the type as floats, or the bytes are not as many as the shape takes.
    """
    flat = np.ascontiguousarray(packed).reshape(-1)
    bytes_per_row = row_size(form, shape[1])
    require_size(flat, shape[0] * bytes_per_row, form)
    if form == "F32":
        return flat.view(np.float32).reshape(shape).copy()
    to_float = library().ggml_get_type_traits(GGMLQuantizationType[form]).contents.to_float
    if not to_float:
        raise ModelError(f"Weights must be in a type that libggml can read as floats; {form} is not: convert the model to F16 or BF16 first.")
    weights = np.empty(shape, dtype=np.float32)

    def expand(start: int, stop: int) -> None:
        source, target = flat[start * bytes_per_row :], weights[start:]
        _TO_FLOAT(to_float)(source.ctypes.data, target.ctypes.data, (stop - start) * shape[1])

    _on_all_threads(expand, _row_blocks(shape, _DECODED_AT_ONCE))
    return weights


def round_plainly(rows: Floats, form: Format) -> Bytes:
    """Return the bytes `(n_bytes,)` of `rows` `(n_rows, n_columns)` by the quantizer without importance: the engine's for keys and values."""
    rows = np.ascontiguousarray(rows)
    from_float = library().ggml_get_type_traits(GGMLQuantizationType[form.name]).contents.from_float_ref
    packed = np.empty((len(rows), form.size_bytes((1, rows.shape[1]))), dtype=np.uint8)

    def quantize(start: int, stop: int) -> None:
        _FROM_FLOAT(from_float)(rows[start:].ctypes.data, packed[start:].ctypes.data, (stop - start) * rows.shape[1])

    _on_all_threads(quantize, _row_blocks(rows.shape, _DECODED_AT_ONCE))
    return packed.reshape(-1)


def quantize(weights: Floats, form: Format, importance: Floats) -> Bytes:
    """Return the bytes `(n_bytes,)` of `weights` `(n_rows, n_columns)`; `importance` is `(1, n_columns)`, all positive, or `(0, n_columns)`."""
    lib, kind = library(), GGMLQuantizationType[form.name]
    lib.ggml_quantize_init(kind)
    weights = np.ascontiguousarray(_without_zero_groups(weights) if form.name == "IQ3_S" else weights)
    pointer = importance.ctypes.data if len(importance) else None
    n_columns, bytes_per_row = weights.shape[1], form.size_bytes((1, weights.shape[1]))
    packed = np.empty((weights.shape[0], bytes_per_row), dtype=np.uint8)

    def quantize_rows(start: int, stop: int) -> None:
        lib.ggml_quantize_chunk(kind, weights[start:].ctypes.data, packed[start:].ctypes.data, 0, stop - start, n_columns, pointer)

    _on_all_threads(quantize_rows, _row_blocks(weights.shape, _ENCODED_AT_ONCE))
    return packed.reshape(-1)


def _without_zero_groups(weights: Floats) -> Floats:
    """Replace groups of 32 zeros in a block of 256 that has other weights by millionths of its largest, of alternating signs.

    `quantize_row_iq3_s_impl` of libggml passes over a group of zeros without a step in its codes, so that all groups after it get those of the group
    before. Such weights have no zero as a level either: as here they take ± the smallest one, by their sign.
    """
    groups = weights.reshape(len(weights), -1, 8, 32)
    zero = np.asarray(~groups.any(axis=3))
    if not zero.any():
        return weights
    tiny = 1e-6 * np.abs(groups).max(axis=(2, 3), keepdims=True) * np.array([1, -1] * 16, dtype=np.float32)
    return np.where(zero[..., None], tiny, groups).reshape(weights.shape)


def _row_blocks(shape: tuple[int, ...], n_weights: int) -> list[tuple[int, int]]:
    """Ranges of rows of at most about `n_weights` for one thread each: one, or as many and as even as leave no thread without one at the end."""
    n_rows, step, n_threads = shape[0], max(1, n_weights // max(prod(shape[1:]), 1)), torch.get_num_threads()
    n_blocks = -(-n_rows // step)
    if n_blocks > 1:
        n_blocks = min(n_rows, -(-n_blocks // n_threads) * n_threads)
    return list(pairwise(i * n_rows // max(n_blocks, 1) for i in range(n_blocks + 1)))


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="ggml")


def _on_all_threads(work: Callable[[int, int], None], blocks: list[tuple[int, int]]) -> None:
    if len(blocks) == 1:
        work(*blocks[0])
        return
    for _ in _pool(torch.get_num_threads()).map(lambda block: work(*block), blocks):
        pass


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _exported(lib: ctypes.CDLL) -> set[str]:
    found = set()
    for name in _SYMBOLS:
        try:
            lib[name]
        except AttributeError:
            continue
        found.add(name)
    return found


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    lib.ggml_quantize_chunk.argtypes = (ctypes.c_int, pointer, pointer, count, count, count, pointer)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_init.argtypes = (ctypes.c_int,)
    lib.ggml_quantize_init.restype = None
    lib.ggml_quantize_requires_imatrix.argtypes = (ctypes.c_int,)
    lib.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    lib.ggml_row_size.argtypes = (ctypes.c_int, count)
    lib.ggml_row_size.restype = ctypes.c_size_t
    lib.ggml_get_type_traits.argtypes = (ctypes.c_int,)
    lib.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    return lib
