"""Channels of a model that one tensor makes and others read, with nothing between them that another map of channels would change.

In a gated feed-forward part, down reads act(gate) · up: any scale may move from down into up, and any order holds for gate, up and down together. In
attention, the output projection reads sums of values: any invertible map within a head may move into v, one for all query heads that share its
values. A norm's weight is a scale of what the matrices after it read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bitwright.compress.models.dimensions import Dimensions, dimensions
from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.compress.models.source import Source
from bitwright.errors import ModelError
from bitwright.spaces import Tensor

JunctionKind = Literal["up-down", "value-output", "norm-attention", "norm-feed-forward"]
#: architectures in which the tensors below are connected as this file says: by running them
ARCHITECTURES_WITH_JUNCTIONS = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class Junction:
    """Channels that the tensors `makers` make, row by row, and the matrices `readers` read, column by column; rows of `gates` follow their order.

    Each head of `width` channels is read `n_shared` times by the columns of a reader.
    """

    kind: JunctionKind
    layer: int
    makers: tuple[str, ...]
    gates: tuple[str, ...]
    readers: tuple[str, ...]
    n_channels: int
    n_shared: int = 1
    width: int = 1

    @property
    def name(self) -> str:
        """Name in files: `blk.3.up-down`."""
        return f"blk.{self.layer}.{self.kind}"


def junctions(source: Source) -> tuple[Junction, ...]:
    """Return the junctions of a model in the order of its blocks.

    Raises:
        ModelError: its architecture is not one whose junctions are known, a block lacks one of the tensors, or they are not stored as floats.
    """
    if source.architecture not in ARCHITECTURES_WITH_JUNCTIONS:
        raise ModelError(
            f"Scales and orders of channels move between matrices in {', '.join(ARCHITECTURES_WITH_JUNCTIONS)} models; {source.name} is "
            f"{source.architecture}: leave the step out."
        )
    shape, tensors = dimensions(source), {tensor.name: tensor for tensor in source.tensors}
    found = tuple(junction for layer in range(shape.n_layers) for junction in _of_block(layer, shape, tensors, source.name))
    for name in (name for one in found for name in (*one.makers, *one.gates, *one.readers)):
        _require_movable(tensors[name])
    return found


def _of_block(layer: int, shape: Dimensions, tensors: Mapping[str, Tensor], model: str) -> Iterator[Junction]:
    def named(*roles: str) -> tuple[str, ...]:
        weights = tuple(f"blk.{layer}.{role}.weight" for role in roles)
        missing = next((name for name in weights if name not in tensors), "")
        if missing:
            raise ModelError(
                f"Scales and orders of channels move in blocks of attention and one gated feed-forward part; {model} has no {missing}: leave the "
                "step out."
            )
        biases = (f"blk.{layer}.{role}.bias" for role in roles)
        return (*weights, *(name for name in biases if name in tensors))

    def readers(*roles: str) -> tuple[str, ...]:
        return tuple(name for name in named(*roles) if name.endswith(".weight"))

    values, outputs = (tensors[name].shape for name in (named("attn_v")[0], readers("attn_output")[0]))
    width = shape.embedding_width
    yield Junction("norm-attention", layer, named("attn_norm"), (), readers("attn_q", "attn_k", "attn_v"), width)
    n_shared, head = outputs[-1] // values[0], shape.value_head
    yield Junction("value-output", layer, named("attn_v"), (), readers("attn_output"), values[0], n_shared, head)
    yield Junction("norm-feed-forward", layer, named("ffn_norm"), (), readers("ffn_gate", "ffn_up"), width)
    up = named("ffn_up")
    yield Junction("up-down", layer, up, named("ffn_gate"), readers("ffn_down"), tensors[up[0]].shape[0])


def _require_movable(tensor: Tensor) -> None:
    kept = ("F32",) if len(tensor.shape) == 1 else tuple(FLOAT_TYPES)
    if tensor.stored not in kept:
        raise ModelError(
            f"Scales and orders of channels move between weights that are stored as floats; {tensor.name} is stored in {tensor.stored}: give the "
            "model before it was quantized, or leave the step out."
        )
