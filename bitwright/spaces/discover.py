"""Find the tensors of a model that can be quantized; all others stay unquantized.

The names are those of GGUF, where the role of a tensor is in its name whatever the architecture (`blk.3.attn_q.weight`). Tensors that llama.cpp
never quantizes stay as they are: vectors, norms, the router of a mixture of experts, and the small matrices of state-space layers
(`tensor_allows_quantization` in llama.cpp's `llama-quant.cpp`). Where experts are stored separately, the expert's index comes before `.weight`
(`blk.3.ffn_up_exps.7.weight`), and where channel ranges are, the part's index (`blk.3.ffn_up.part.1.weight`); GGUF has neither.
"""

import re
from collections.abc import Iterable

from bitwright.spaces.unit import Tensor, Unit

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+?)(?:\.(\d+))?(?:\.part\.(\d+))?\.weight")
_OUTSIDE = re.compile(r"(\w+)\.weight")
_KEPT_KINDS = re.compile(r".*norm.*|ffn_gate_inp.*|position_embd|token_types|ssm_(conv1d|x|dt)|altup.*|laurel.*|per_layer_model_proj|time_mix_.*")


def expert_of(name: str) -> tuple[int, int]:
    """Parse layer and expert index from a tensor's name, -1 for either that the name does not have."""
    block = _BLOCK.fullmatch(name)
    return (int(block[1]), int(block[3] or -1)) if block else (-1, -1)


def part_of(name: str) -> int:
    """Parse the index of the channel range from a tensor's name, -1 for a whole tensor."""
    block = _BLOCK.fullmatch(name)
    return int(block[4] or -1) if block else -1


def discover(tensors: Iterable[Tensor]) -> tuple[Unit, ...]:
    """Return one unit for each weight matrix among `tensors`, in their order.

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
    """Parse the role from a tensor's name: `attn_q` for `blk.3.attn_q.weight`, empty where the name has no role."""
    block, outside = _BLOCK.fullmatch(name), _OUTSIDE.fullmatch(name)
    return block[2] if block else outside[1] if outside else ""
