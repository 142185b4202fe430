"""Heads and channels of a model in the order of what they give, so that taking some away leaves the first ones.

Attention is a sum over groups of heads, and a gated feed-forward part over its channels, so another order of them computes the same. What a channel
gives is the energy of its input to the last matrix of the part, which the importance matrix has, times the squared norm of its column there (the
output's second moment, if channels were uncorrelated); a group of heads gives what its columns of the output projection do. Both are functions of the
weights and the importance matrix, so a plan that names these needs no list of the order. A method may bring other scores of channels, which a plan
names by their file.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.models.dimensions import Dimensions, dimensions
from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.compress.models.model import Model
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.compress.models.tensor_layout import ParameterSlice, as_indices, indices
from bitwright.errors import ModelError
from bitwright.spaces import Structure, StructureKind, Tensor, expert_of, role_of

Order = NDArray[np.int64]
_DOWN, _OUTPUT = "ffn_down.weight", "attn_output.weight"
_VALUES = "attn_v"
#: role of the last matrix of a part → the part, by the name of its matrix in a dense block
_LAST = {"attn_output": "attn_output", **dict.fromkeys(("ffn_down", "ffn_down_exps", "ffn_down_shexp"), "ffn_down")}
_OF_CHANNELS = ("ffn_gate.weight", "ffn_up.weight")
_OF_QUERIES, _OF_KEYS, _OF_VALUES = ("attn_q.weight", "attn_q.bias"), ("attn_k.weight", "attn_k.bias"), ("attn_v.weight", "attn_v.bias")


@dataclass(frozen=True, eq=False)
class PartOrder:
    """Order of the rows and of the columns of tensors by name; a tensor or dimension that is missing stays as it is."""

    rows: Mapping[str, Order]
    columns: Mapping[str, Order]

    @property
    def digest(self) -> str:
        """SHA-256 of the order in hexadecimal, empty where nothing is moved."""
        found = hashlib.sha256()
        for kind, orders in (("rows", self.rows), ("columns", self.columns)):
            for name in sorted(orders):
                found.update(f"{kind} {name} ".encode() + orders[name].astype("<i8").tobytes())
        return found.hexdigest() if self.rows or self.columns else ""


#: the order that every tensor has
UNMOVED = PartOrder({}, {})


def last_matrices(tensors: Iterable[Tensor]) -> dict[tuple[int, str], tuple[Tensor, ...]]:
    """Return the matrices that the parts of blocks end in, by block and `attn_output` or `ffn_down`: a mixture of experts ends in the stack of its
    experts' down projections, and that of a shared expert.
    """
    found = dict[tuple[int, str], tuple[Tensor, ...]]()
    for tensor in (tensor for tensor in tensors if role_of(tensor) in _LAST):
        key = expert_of(tensor.name)[0], _LAST[role_of(tensor)]
        found[key] = (*found.get(key, ()), tensor)
    return found


def attention_paths(tensors: Iterable[Tensor]) -> dict[int, str]:
    """Return the name of the module of each block's attention, by block, for tensors that are called as in their module."""
    return {layer: found[0].name.rsplit(".", 2)[0] for (layer, role), found in last_matrices(tensors).items() if role == "attn_output"}


def whole_structure(source: Source) -> Structure:
    """Return the structure of all of a model: its groups of heads, channels and experts, by block. A source without metadata, that of a module, says
    nothing of heads: there the attention of a block is one group. Experts are those of stacks.

    Raises:
        ModelError: its metadata lacks its dimensions, it has a block without heads or a feed-forward part, or dense ones and mixtures of experts.
    """
    last, n_layers = last_matrices(source.tensors), _n_layers(source)
    found = last.keys() | {(expert_of(tensor.name)[0], _VALUES) for tensor in source.tensors if role_of(tensor) == _VALUES}
    needed = (*dict.fromkeys(_LAST.values()), *([_VALUES] if source.metadata else []))
    missing = next((f"{role} in block {i}" for i in range(n_layers) for role in needed if (i, role) not in found), "" if n_layers else "block")
    if missing:
        raise ModelError(
            f"Structure is taken from models whose every block has heads and a feed-forward part; {source.name} has no {missing}: leave "
            "--structure out."
        )
    if len({tuple(role_of(tensor) for tensor in last[i, "ffn_down"]) for i in range(n_layers)}) > 1:
        raise ModelError(
            f"Structure is taken from models whose blocks are alike; {source.name} has dense ones and mixtures of experts: leave --structure out."
        )
    channels = tuple(last[i, "ffn_down"][0].shape[-1] for i in range(n_layers))
    stacks = [[tensor for tensor in last[i, "ffn_down"] if len(tensor.shape) > 2] for i in range(n_layers)]
    experts = tuple(tuple(range(of_block[0].shape[0])) for of_block in stacks if of_block)
    return Structure(_head_groups(source, n_layers), channels, experts)


def _n_layers(source: Source) -> int:
    return dimensions(source).n_layers if source.metadata else 1 + max((expert_of(tensor.name)[0] for tensor in source.tensors), default=-1)


def _head_groups(source: Source, n_layers: int) -> tuple[int, ...]:
    if not source.metadata:
        return (1,) * n_layers
    head, wide = dimensions(source).value_head, {tensor.name: tensor.shape for tensor in source.tensors}
    return tuple(wide[f"blk.{i}.attn_v.weight"][0] // head for i in range(n_layers))


def part_order(
    source: Source, importance: Mapping[str, Floats], kinds: Collection[StructureKind], scores: Mapping[str, Floats] | None = None
) -> PartOrder:
    """Return the order of heads and channels of a source, those of the `kinds` that are ordered, by falling energy; of equals the first comes first.

    `importance` has the mean squared inputs `(1, n_columns)` of the tensors. Where a down matrix has `scores` `(1, n_columns)`, its channels are in
    the order of these instead.

    Raises:
        ModelError: the importance of an output or down projection is unknown.
    """
    if not kinds:
        return UNMOVED
    shape, whole = dimensions(source), whole_structure(source)
    rows, columns = dict[str, Order](), dict[str, Order]()
    for layer in range(whole.n_layers):
        block = f"blk.{layer}."
        if "channels" in kinds:
            scored = (scores or {}).get(f"{block}{_DOWN}")
            order = _falling(_energies(source, f"{block}{_DOWN}", importance) if scored is None else scored[0])
            columns[f"{block}{_DOWN}"] = order
            rows |= {f"{block}{name}": order for name in _OF_CHANNELS}
        if "heads" in kinds:
            groups = _falling(_energies(source, f"{block}{_OUTPUT}", importance).reshape(whole.head_groups[layer], -1).sum(axis=1))
            found_rows, columns[f"{block}{_OUTPUT}"] = _rows_of_heads(groups, shape)
            rows |= {f"{block}{name}": order for name, order in found_rows.items()}
    names = {tensor.name for tensor in source.tensors}
    return PartOrder({name: order for name, order in rows.items() if name in names}, columns)


def _rows_of_heads(groups: Order, shape: Dimensions) -> tuple[dict[str, Order], Order]:
    """Return the rows of q, k and v by name, and the columns of the output projection, for an order of groups of heads `(n_groups,)`."""
    each = shape.query_width // shape.key_head // len(groups)  # query heads of a group
    queries = _spread(_spread(groups, each), shape.key_head)
    keys, values = _spread(groups, shape.key_head), _spread(groups, shape.value_head)
    found = dict.fromkeys(_OF_QUERIES, queries) | dict.fromkeys(_OF_KEYS, keys) | dict.fromkeys(_OF_VALUES, values)
    return found, _spread(_spread(groups, each), shape.value_head)


def _spread(order: Order, width: int) -> Order:
    """Return the order of the rows of parts of `width` rows each."""
    spread: Order = (order[:, None] * width + np.arange(width)).reshape(-1)
    return spread


def _energies(source: Source, name: str, importance: Mapping[str, Floats]) -> NDArray[np.float64]:
    """Return the energy that each column of a matrix gives to its output `(n_columns,)`."""
    if name not in importance:
        raise ModelError(
            f"Heads and channels are ordered by the importance matrix; it has nothing of {name}: leave --imatrix out, or give one with every layer."
        )
    tensor = next(tensor for tensor in source.tensors if tensor.name == name)
    energies: NDArray[np.float64] = importance[name][0].astype(np.float64) * (source.read(tensor).astype(np.float64) ** 2).sum(axis=0)
    return energies


def _falling(values: NDArray[np.floating]) -> Order:
    return np.argsort(-values, kind="stable")


def kept_energies(source: Source, importance: Mapping[str, Floats], layer: int) -> NDArray[np.float64]:
    """Return the share of energy that the first 0, 1, 2, … channels of a block give, `(n_channels + 1,)`, in their order in `source`."""
    energies = _energies(source, f"blk.{layer}.{_DOWN}", importance)
    summed = np.append(0.0, np.cumsum(energies))
    shares: NDArray[np.float64] = summed / summed[-1] if summed[-1] > 0 else np.linspace(0, 1, len(summed))
    return shares


def require_orderable(tensors: Iterable[Tensor]) -> None:
    """Raise if the columns of an output or down projection cannot be put in another order as they are stored.

    Raises:
        ModelError: they are not floats.
    """
    quantized = next((t for t in tensors if t.name.endswith((_DOWN, _OUTPUT)) and t.stored not in FLOAT_TYPES), None)
    if quantized is not None:
        raise ModelError(
            f"Heads and channels are put in order where weights are stored as floats; {quantized.name} is stored in {quantized.stored}: give the "
            "model before it was quantized, or --structure attention,layers."
        )


class OrderedSource(Source):
    """Source `whole` with rows and columns of its tensors in another order; everything else, the fingerprint included, is that of `whole`."""

    def __init__(self, whole: Source, order: PartOrder) -> None:
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings, self.tensors = whole.fingerprint, whole.settings, whole.tensors
        self.whole, self._order = whole, order

    def read(self, tensor: Tensor) -> Floats:
        """Read a tensor as float32 `(n_rows, n_columns)` in the new order."""
        return self._moved(tensor, self.whole.read(tensor))

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)` in the new order."""
        packed = self.whole.stored(tensor)
        if tensor.name not in self._order.rows and tensor.name not in self._order.columns:
            return packed
        if len(tensor.shape) == 1:
            return self._moved(tensor, packed.reshape(tensor.shape[0], -1)).reshape(-1)
        cells = tensor.shape[1] if tensor.name in self._order.columns else 1
        return self._moved(tensor, packed.reshape(tensor.shape[0], cells, -1)).reshape(-1)

    def _moved(self, tensor: Tensor, matrix: NDArray[np.generic]) -> NDArray:  # type: ignore[type-arg]
        if tensor.name in self._order.rows:
            vector = len(tensor.shape) == 1 and matrix.shape[0] == 1
            matrix = matrix[:, self._order.rows[tensor.name]] if vector else matrix[self._order.rows[tensor.name]]
        if tensor.name in self._order.columns:
            matrix = matrix[:, self._order.columns[tensor.name]]
        return np.ascontiguousarray(matrix)


def ordered_model(model: Model, order: PartOrder) -> Model:
    """Return the same module with the tensors of its source in another order."""
    pieces = {name: _ordered(of_tensor, name, order) for name, of_tensor in model.pieces.items()}
    return replace(model, source=OrderedSource(model.source, order), pieces=pieces)


def ordered_importance(importance: Mapping[str, Floats], order: PartOrder) -> dict[str, Floats]:
    """Return an importance matrix, `(n_groups, n_columns)` by tensor, with the columns of tensors in another order."""
    return {name: np.ascontiguousarray(rows[:, order.columns[name]]) if name in order.columns else rows for name, rows in importance.items()}


def _ordered(pieces: tuple[ParameterSlice, ...], name: str, order: PartOrder) -> tuple[ParameterSlice, ...]:
    if name not in order.rows and name not in order.columns:
        return pieces
    (piece,) = pieces
    if name in order.rows:
        piece = replace(piece, rows=as_indices(indices(piece.rows)[order.rows[name]]))
    if name in order.columns:
        columns = order.columns[name] if piece.columns is None else indices(piece.columns)[order.columns[name]]
        piece = replace(piece, columns=as_indices(columns))
    return (piece,)
