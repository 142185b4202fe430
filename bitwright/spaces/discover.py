"""Which tensors of a model are decided about, and which stay as they are.

The names are those of GGUF, where the role of a tensor is in its name whatever the architecture (`blk.3.attn_q.weight`). What llama.cpp itself
never quantizes stays as it is: vectors, norms, the router of a mixture of experts, and the small matrices of state-space layers
(`tensor_allows_quantization` in llama.cpp's `llama-quant.cpp`). Where experts lie apart, the expert's index stands before the end of the name
(`blk.3.ffn_up_exps.7.weight`), and where channels lie apart the part's (`blk.3.ffn_up.part.1.weight`), which GGUF does not have.
"""

import re
from collections.abc import Iterable

from bitwright.spaces.unit import Tensor, Unit

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+?)(?:\.(\d+))?(?:\.part\.(\d+))?\.weight")
_OUTSIDE = re.compile(r"(\w+)\.weight")
_KEPT_KINDS = re.compile(r".*norm.*|ffn_gate_inp.*|position_embd|token_types|ssm_(conv1d|x|dt)|altup.*|laurel.*|per_layer_model_proj|time_mix_.*")


def expert_of(name: str) -> tuple[int, int]:
    """Layer and index of the expert that a tensor's name names, -1 for what it does not."""
    block = _BLOCK.fullmatch(name)
    return (int(block[1]), int(block[3] or -1)) if block else (-1, -1)


def part_of(name: str) -> int:
    """The index of the part of its channels that a tensor's name names, -1 where it is whole."""
    block = _BLOCK.fullmatch(name)
    return int(block[4] or -1) if block else -1


def discover(tensors: Iterable[Tensor]) -> tuple[Unit, ...]:
    """One unit for each weight matrix among `tensors`, in their order.

    The token embedding and the output head are units like any other; where they are tied the file holds one tensor, so there is one unit.
    """
    units = []
    for tensor in tensors:
        kind = role(tensor.name)
        if kind and len(tensor.shape) >= 2 and not _KEPT_KINDS.fullmatch(kind):
            layer, expert = expert_of(tensor.name)
            units.append(Unit(tensor.name.removesuffix(".weight"), layer, kind, (tensor,), expert))
    return tuple(units)


def role(name: str) -> str:
    """The role of a tensor by its name: `attn_q` for `blk.3.attn_q.weight`, empty for a name of another kind."""
    block, outside = _BLOCK.fullmatch(name), _OUTSIDE.fullmatch(name)
    return block[2] if block else outside[1] if outside else ""
