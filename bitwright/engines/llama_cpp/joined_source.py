"""Queries, keys and values of a block as one tensor `attn_qkv`, one below the other, as llama.cpp's `openelm` loads them (`src/models/openelm.cpp`).

A Qwen3-shaped model with a tied head is computed as `openelm` computes: norms of the heads of q and k, halves of a head paired in the rotary
embedding, and numbers of heads and channels of each block in the metadata.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from bitwright.compress import Bytes, Floats, Source, Weights
from bitwright.engines.llama_cpp.structured_source import JOINED, OPENELM, StructuredSource
from bitwright.engines.narrowed_source import NarrowedSource
from bitwright.errors import UserError
from bitwright.spaces import Structure, Tensor, role_of

_FIRST = JOINED[0]
_QKV = "attn_qkv"


def structured_source(whole: Source, structure: Structure) -> NarrowedSource:
    """Return the tensors and metadata that llama.cpp loads of a structure of `whole`.

    Raises:
        UserError: it loads no such model.
    """
    kept = StructuredSource(whole, structure)
    return JoinedSource(kept) if kept.architecture == OPENELM else kept


class JoinedSource(NarrowedSource):
    """Tensors that are kept of a model, `apart`, with q, k and v of each block joined."""

    def __init__(self, apart: StructuredSource) -> None:
        self.name, self.architecture, self.metadata = apart.name, apart.architecture, apart.metadata
        self.fingerprint, self.settings, self._apart = apart.fingerprint, apart.settings, apart
        named = {tensor.name: tensor for tensor in apart.tensors}
        self._parts = {_joined(name): [named[_of_role(name, role)] for role in JOINED] for name in named if role_of(named[name]) == _FIRST}
        self.tensors = tuple(self._tensor(tensor) for tensor in apart.tensors if role_of(tensor) not in JOINED[1:])

    def renamed(self, formats: Mapping[str, str]) -> dict[str, str]:
        """Return the formats of a plan of the whole model (tensor → format) by the names of what is kept: of what is joined, that of q."""
        apart = self._apart.renamed(formats)
        return {_joined(name): form for name, form in apart.items() if not any(name == _of_role(name, role) for role in JOINED[1:])}

    def packed(self, tensor: Tensor, whole: Callable[[Tensor], Bytes], formats: Mapping[str, str]) -> Bytes:
        """Return the bytes `(n_bytes,)` that are kept of a tensor, from those that `whole` gives of tensors of the whole model in their `formats`."""
        return np.concatenate([self._apart.packed(part, whole, formats) for part in self._of(tensor)])

    def read(self, tensor: Tensor) -> Floats:
        """Read what is kept of a tensor as float32 `(n_rows, n_columns)`."""
        return np.concatenate([self._apart.read(part) for part in self._of(tensor)])

    def stored(self, tensor: Tensor) -> Bytes:
        """Return what is kept of the stored bytes of a tensor."""
        return np.concatenate([self._apart.stored(part) for part in self._of(tensor)])

    def widened(self, file: Source) -> Weights:
        """Return what gives the matrices of the whole model as `file` has them, zero where nothing is kept."""
        return self._apart.widened(_Apart(file, self._parts))

    def require_whole_blocks(self, formats: Mapping[str, str]) -> None:
        """Raise if what is kept of a row is no whole number of blocks of its format in `formats`, or joined matrices have several formats.

        Raises:
            UserError: see above.
        """
        self._apart.require_whole_blocks(formats)
        of_kept = self._apart.renamed(formats)
        for parts in self._parts.values():
            found = {part.name: of_kept.get(part.name, part.stored) for part in parts}
            if len(set(found.values())) > 1:
                raise UserError(
                    f"Queries, keys and values of a block are one tensor where blocks differ, and have one format; {parts[0].name} and those beside "
                    f"it have {' and '.join(dict.fromkeys(found.values()))}: give them the same."
                )

    def _of(self, tensor: Tensor) -> list[Tensor]:
        return self._parts.get(tensor.name, [tensor])

    def _tensor(self, first: Tensor) -> Tensor:
        name = _joined(first.name)
        return replace(first, name=name, shape=(sum(part.shape[0] for part in self._parts[name]), *first.shape[1:])) if name in self._parts else first


class _Apart(Source):
    """File with its joined tensors as their `parts`; only `read` is of use."""

    def __init__(self, file: Source, parts: Mapping[str, list[Tensor]]) -> None:
        self.name, self.architecture, self.metadata = file.name, file.architecture, file.metadata
        self.fingerprint, self._file = file.fingerprint, file
        self._places = dict[str, tuple[Tensor, int]]()
        found = list[Tensor]()
        for tensor in file.tensors:
            first = 0
            for part in parts.get(tensor.name, [tensor]):
                self._places[part.name] = tensor, first
                first += part.shape[0]
                found.append(part)
        self.tensors = tuple(found)

    def read(self, tensor: Tensor) -> Floats:
        """Read a tensor as float32 `(n_rows, n_columns)`."""
        joined, first = self._places[tensor.name]
        return self._file.read(joined) if len(tensor.shape) == 1 else self._file.some_rows(joined, first, first + tensor.shape[0])

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes of a tensor that is joined with no other."""
        return self._file.stored(self._places[tensor.name][0])


def _joined(name: str) -> str:
    return name.replace(f".{_FIRST}.weight", f".{_QKV}.weight")


def _of_role(name: str, role: str) -> str:
    """Return the name of the matrix of that role in the block of a tensor."""
    block, number, _ = name.split(".", 2) if name.startswith("blk.") else ("", "", "")
    return f"{block}.{number}.{role}.weight"
