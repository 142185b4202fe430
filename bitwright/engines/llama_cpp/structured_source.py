"""Tensors and metadata of a model of which parts are taken away, as stock llama.cpp loads it.

Where whole blocks go, the others are numbered anew and the architecture stays, as it does where every block keeps as many experts. Where blocks
differ in their heads or channels, a Llama-shaped model is written as architecture `deci`, whose metadata has the heads and the width of every block
(`src/models/deci.cpp` of llama.cpp): no heads, no attention and no cache of keys and values. The first block keeps some, since the size of a head is
read only where it has heads. `deci` pairs neighbouring dimensions of a head in its rotary embedding, where Qwen2 pairs the two halves, so the rows of
q and k of a Qwen2 model are put in that order.

Tensors are narrowed by their bytes: what is kept are the first rows, and of each row the first blocks of weights, exactly as they are in the whole
tensor, so a narrow matrix has the very weights that the wide one had.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from bitwright.compress import (
    ROUTER,
    Bytes,
    Dimensions,
    Floats,
    KeyValue,
    NarrowedRouter,
    Source,
    Weights,
    dimensions,
    is_of_experts,
    last_matrices,
    matrix_shape,
    whole_structure,
)
from bitwright.engines.narrowed_source import (
    NarrowedSource,
    nothing,
    require_droppable,
    require_same_experts,
    require_unbiased,
)
from bitwright.errors import UserError
from bitwright.spaces import GGML_BY_NAME, WHOLE_BLOCK_KINDS, Structure, StructureKind, Tensor, expert_of, role_of

DECI, OPENELM = "deci", "openelm"
#: architectures that are computed as others compute whose blocks may differ
_COMPUTED_AS = {"llama": DECI, "qwen2": DECI, "qwen3": OPENELM}
_HALVES = ("qwen2",)
_ATTENTION = ("attn_norm.", "attn_q.", "attn_k.", "attn_v.", "attn_output.")
_FEED_FORWARD = ("ffn_norm.", "ffn_gate.", "ffn_up.", "ffn_down.")
_BIASES = ("ffn_gate.bias", "ffn_up.bias")
_KEYS, _VALUES, _QUERIES = "attn_k.", "attn_v.", "attn_q."
#: roles whose matrices `openelm` has one below the other, as `attn_qkv`
JOINED = ("attn_q", "attn_k", "attn_v")
_KEY_LENGTH, _VALUE_LENGTH = "attention.key_length", "attention.value_length"
_COUNT, _EXPERTS, _HEADS, _KV_HEADS, _WIDTH, _ROPE = (
    "block_count",
    "expert_count",
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
    "rope.dimension_count",
)


@dataclass(frozen=True)
class _Cut:
    """Rows and columns that are kept of the tensor `whole`, and those of these rows that the file has in their order there (None where all stay). A
    row of a stack is the matrix of an expert.
    """

    whole: Tensor
    n_rows: int
    n_columns: int
    order: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that is kept."""
        n_rows = self.n_rows if self.order is None else len(self.order)
        return (n_rows,) if len(self.whole.shape) == 1 else (n_rows, *self.whole.shape[1:-1], self.n_columns)

    @property
    def is_whole(self) -> bool:
        """Return whether the tensor is kept as it is."""
        return self.shape == self.whole.shape and self.order is None


class StructuredSource(NarrowedSource):
    """Source `whole`, whose heads and channels are in the order of what they give, with a `structure` of it alone."""

    def __init__(self, whole: Source, structure: Structure) -> None:
        full = whole_structure(whole)
        structure.require_within(full)
        self.name, self.fingerprint, self.settings = whole.name, whole.fingerprint, whole.settings
        self.whole, self.is_uniform, self._dropped = whole, structure.is_uniform(full), structure.dropped(full)
        require_same_experts(whole, structure)
        if not self.is_uniform:
            require_narrowable(whole)
            _require_attention(whole, structure)
        self.architecture = whole.architecture if self.is_uniform else _COMPUTED_AS[whole.architecture]
        shape = dimensions(whole)
        kept = [i for i in range(full.n_layers) if i not in structure.gone]
        self._cuts = dict(_named(whole, kept, structure, shape, rotated=not self.is_uniform and whole.architecture in _HALVES))
        self.tensors = tuple(replace(cut.whole, name=name, shape=cut.shape) for name, cut in self._cuts.items())
        self.metadata = tuple(self._entries(kept, structure, full, shape))

    def of(self, tensor: Tensor) -> Tensor:
        """Return the tensor of the whole model that a tensor is cut from."""
        return self._cuts[tensor.name].whole

    def renamed(self, formats: Mapping[str, str]) -> dict[str, str]:
        """Return the formats of a plan of the whole model (tensor → format) by the names of what is kept."""
        return {name: formats[cut.whole.name] for name, cut in self._cuts.items() if cut.whole.name in formats}

    def packed(self, tensor: Tensor, whole: Callable[[Tensor], Bytes], formats: Mapping[str, str]) -> Bytes:
        """Return the bytes `(n_bytes,)` that are kept of a tensor, from those that `whole` gives of tensors of the whole model in their `formats`."""
        of = self.of(tensor)
        return self.narrowed(tensor, whole(of), formats[of.name])

    def narrowed(self, tensor: Tensor, packed: Bytes, form: str) -> Bytes:
        """Return the bytes that are kept of those of the whole tensor in the format named, `(n_bytes,)`."""
        cut = self._cuts[tensor.name]
        if cut.is_whole:
            return packed
        rows = packed.reshape(cut.whole.shape[0], -1)[: cut.n_rows]
        if cut.n_columns < cut.whole.shape[-1]:
            rows = rows[:, : GGML_BY_NAME[form].size_bytes((cut.n_columns,))]
        return np.ascontiguousarray(rows if cut.order is None else rows[list(cut.order)]).reshape(-1)

    def read(self, tensor: Tensor) -> Floats:
        """Read what is kept of a tensor as float32 `(n_rows, n_columns)`."""
        cut = self._cuts[tensor.name]
        weights = self.whole.read(cut.whole)
        if cut.is_whole:
            return weights
        if len(cut.whole.shape) == 1:
            weights = weights.reshape(-1, 1)
        weights = weights.reshape(cut.whole.shape)[: cut.n_rows]
        weights = weights[..., : cut.n_columns] if weights.ndim > 1 else weights
        return np.ascontiguousarray(weights if cut.order is None else weights[list(cut.order)]).reshape(-1, tensor.shape[-1])

    def stored(self, tensor: Tensor) -> Bytes:
        """Return what is kept of the stored bytes of a tensor."""
        cut = self._cuts[tensor.name]
        packed = self.whole.stored(cut.whole)
        return self.narrowed(tensor, packed, cut.whole.stored)

    def widened(self, file: Source) -> Weights:
        """Return what gives each matrix of the whole model as `file` has it, float32 `(n_rows, n_columns)` by name: zero where nothing is kept, and
        without the matrices of a part that is gone but its last, which is zero.
        """
        matrices = [(tensor, self._cuts[tensor.name]) for tensor in file.tensors if len(tensor.shape) > 1]
        found: Weights = {cut.whole.name: partial(_widened, file, tensor, cut) for tensor, cut in matrices}
        for _, cut in matrices:
            layer = expert_of(cut.whole.name)[0]
            if role_of(cut.whole) == ROUTER and layer in self._dropped:
                found = {**found, cut.whole.name: NarrowedRouter(found[cut.whole.name], layer, self._dropped[layer])}
        last = [tensor for tensor in chain(*last_matrices(self.whole.tensors).values()) if tensor.name not in found]
        return {**found, **{tensor.name: partial(nothing, tensor) for tensor in last}}

    def require_whole_blocks(self, formats: Mapping[str, str]) -> None:
        """Raise if what is kept of a row is no whole number of blocks of its format in `formats`."""
        for tensor in self.tensors:
            form = formats.get(self.of(tensor).name, tensor.stored)
            if form in GGML_BY_NAME and len(tensor.shape) > 1 and not GGML_BY_NAME[form].fits(tensor.shape):
                raise UserError(
                    f"What is kept of a row must be whole blocks of its format; {self.of(tensor).name} keeps {tensor.shape[-1]} of each row and "
                    f"{form} has blocks of {GGML_BY_NAME[form].block}: keep a multiple of that, or give it another format."
                )

    def _entries(self, kept: list[int], structure: Structure, full: Structure, shape: Dimensions) -> Iterable[KeyValue]:
        """Yield the metadata: that of the whole model, with its blocks, heads and widths those that are kept."""
        prefix, each = f"{self.whole.architecture}.", shape.query_width // shape.key_head // max(full.head_groups)
        n_experts = len(structure.experts[kept[0]]) if structure.experts else 0
        by_layer = {
            _HEADS: [structure.head_groups[i] * each for i in kept],
            _KV_HEADS: [structure.head_groups[i] for i in kept],
            _WIDTH: [structure.channels[i] for i in kept],
        }
        said = {entry.key.removeprefix(prefix) for entry in self.whole.metadata}
        for entry in self.whole.metadata:
            key = entry.key.removeprefix(prefix)
            named = entry.key if key == entry.key else f"{self.architecture}.{key}"
            if key == _COUNT:
                yield replace(entry, key=named, value=len(kept))
            elif key == _EXPERTS and n_experts:
                yield replace(entry, key=named, value=n_experts)
            elif not self.is_uniform and key in by_layer:
                yield KeyValue(named, by_layer[key], GGUFValueType.ARRAY, GGUFValueType.INT32)
            elif entry.type is GGUFValueType.ARRAY and key != entry.key and len(entry.value) == full.n_layers:
                yield replace(entry, key=named, value=[entry.value[i] for i in kept])
            else:
                yield replace(entry, key=named)
        if not self.is_uniform and _KV_HEADS not in said:
            yield KeyValue(f"{self.architecture}.{_KV_HEADS}", by_layer[_KV_HEADS], GGUFValueType.ARRAY, GGUFValueType.INT32)
        for key, size in ((_ROPE, shape.key_head), (_KEY_LENGTH, shape.key_head), (_VALUE_LENGTH, shape.value_head)):
            if not self.is_uniform and key not in said:  # else it would be taken from the first block's number of heads
                yield KeyValue(f"{self.architecture}.{key}", size, GGUFValueType.UINT32, GGUFValueType.UINT32)


def _widened(file: Source, tensor: Tensor, cut: _Cut) -> Floats:
    if cut.is_whole:
        return file.read(tensor)
    wide = np.zeros(cut.whole.shape, dtype=np.float32)
    wide[list(cut.order) if cut.order is not None else slice(cut.n_rows), ..., : cut.n_columns] = file.read(tensor).reshape(cut.shape)
    return wide.reshape(matrix_shape(cut.whole))


def require_narrowable(source: Source) -> None:
    """Raise if stock llama.cpp has no architecture in which this model may have blocks of different widths.

    Raises:
        UserError: it is none of those that are computed as `deci` or `openelm`, is a mixture of experts, has a head of its own where the embedding is
            to be both, or has biases that such blocks do not have.
    """
    sparse = any(entry.key == f"{source.architecture}.expert_count" and entry.value for entry in source.metadata)
    if source.architecture not in _COMPUTED_AS or sparse:
        what = f"{source.architecture} with experts" if sparse else source.architecture
        raise UserError(
            f"llama.cpp loads blocks of different heads and widths of the architectures {', '.join(_COMPUTED_AS)}; this model is {what}: choose "
            "--structure layers,experts, or one of them."
        )
    if _COMPUTED_AS[source.architecture] == OPENELM and any(tensor.name == "output.weight" for tensor in source.tensors):
        raise UserError(
            f"llama.cpp loads blocks of different heads and widths of {source.architecture} where the head is tied to the embedding; this model has "
            "a head of its own: choose --structure layers."
        )
    biased = next((tensor.name for tensor in source.tensors if tensor.name.endswith(_BIASES)), "")
    if biased:
        raise UserError(f"llama.cpp loads blocks of different widths without biases of channels; this model has {biased}: choose --structure layers.")


def _require_attention(source: Source, structure: Structure) -> None:
    without = next((i for i, n in enumerate(structure.head_groups) if not n and i not in structure.gone), -1)
    if _COMPUTED_AS[source.architecture] == OPENELM and without >= 0:
        raise UserError(
            f"llama.cpp loads every block of {source.architecture} with its attention; block {without} is without: keep heads there, or take the "
            "whole block away."
        )


def joined_roles(source: Source, kinds: Collection[StructureKind]) -> tuple[str, ...]:
    """Return the roles of a block's matrices that are one tensor where blocks of this model differ, and so have one format."""
    differ = not {*kinds} <= {*WHOLE_BLOCK_KINDS}
    return JOINED if differ and _COMPUTED_AS.get(source.architecture) == OPENELM else ()


def require_structure_taken(source: Source, kinds: Collection[StructureKind]) -> None:
    """Raise if llama.cpp cannot load this model without parts of these `kinds`.

    Raises:
        UserError: see `require_narrowable` and `require_unbiased`, or its blocks are not all alike in what says which block is which.
        ModelError: it has blocks without heads or a dense feed-forward part.
    """
    whole_structure(source)
    require_unbiased(source)
    require_droppable(source, kinds)
    if not {*kinds} <= {*WHOLE_BLOCK_KINDS}:
        require_narrowable(source)
    if "attention" in kinds and _COMPUTED_AS[source.architecture] == OPENELM:
        raise UserError(
            f"llama.cpp loads every block of {source.architecture} with its attention; attention was named: choose --structure heads,channels,layers."
        )
    if any(dimensions(source).windowed):
        raise UserError(
            f"Blocks of {source.architecture} have windows by their place, which those behind a block that is taken away would change: leave "
            "--structure out."
        )


def _named(whole: Source, kept: list[int], structure: Structure, shape: Dimensions, *, rotated: bool) -> Iterable[tuple[str, _Cut]]:
    """Yield the new name and the cut of every tensor that is kept, in their order."""
    place = {layer: i for i, layer in enumerate(kept)}
    n_queries = shape.query_width // shape.key_head // max(whole_structure(whole).head_groups)
    for tensor in whole.tensors:
        block, layer, role = _parsed(tensor.name)
        if not block:
            yield tensor.name, _uncut(tensor)
        elif layer in place:
            groups, channels = structure.head_groups[layer], structure.channels[layer]
            if (role.startswith(_ATTENTION) and not groups) or (role.startswith(_FEED_FORWARD) and not channels):
                continue
            cut = _cut(tensor, role, shape, groups=groups, queries=groups * n_queries, channels=channels)
            if rotated and role.startswith((_QUERIES, _KEYS)):
                cut = replace(cut, order=_neighbours(cut.n_rows, shape.key_head))
            if structure.experts and is_of_experts(tensor):
                cut = replace(cut, order=structure.experts[layer])
            yield f"blk.{place[layer]}.{role}", cut


def _parsed(name: str) -> tuple[str, int, str]:
    """Return `blk`, the block and the rest of a tensor's name, the first of them empty outside the blocks."""
    parts = name.split(".", 2)
    return (parts[0], int(parts[1]), parts[2]) if parts[0] == "blk" else ("", -1, name)


def _uncut(tensor: Tensor) -> _Cut:
    return _Cut(tensor, tensor.shape[0], tensor.shape[-1])


def _cut(tensor: Tensor, role: str, shape: Dimensions, *, groups: int, queries: int, channels: int) -> _Cut:
    """Return what is kept of a tensor of a block that keeps so many groups of heads, heads of queries, and channels."""
    rows = {_QUERIES: queries * shape.key_head, _KEYS: groups * shape.key_head, _VALUES: groups * shape.value_head}
    rows |= dict.fromkeys(("ffn_gate.", "ffn_up."), channels)
    columns = {"attn_output.": queries * shape.value_head, "ffn_down.": channels}
    whole = _uncut(tensor)
    start = f"{role.split('.')[0]}."
    return replace(whole, n_rows=rows.get(start, whole.n_rows), n_columns=columns.get(start, whole.n_columns))


def _neighbours(n_rows: int, head: int) -> tuple[int, ...]:
    """Return rows of heads of `head` dimensions, paired by halves, in the order in which the dimensions of a pair are neighbours."""
    order: NDArray[np.int64] = np.arange(n_rows).reshape(-1, 2, head // 2).swapaxes(1, 2).reshape(-1)
    return tuple(order.tolist())
