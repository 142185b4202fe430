"""Names of tensors, and the tensors of a model that can be quantized; all others stay unquantized.

One grammar reads both kinds of names. In GGUF the role of a tensor is in its name whatever the architecture:

    blk.3.attn_q.weight        blk.3.ffn_up_exps.7.weight                     blk.3.ffn_up.part.1.weight        blk.3.shortconv.in_proj.weight

A tensor of a transformers module has the module's own name, in which the layer is the first number, the expert the number after `experts`, and a
range of channels the component `partN`; its role is `Tensor.kind`, found in the module's structure (`compress/models/modules/structure.py`):

    model.layers.3.self_attn.q_proj.weight   model.layers.3.mlp.experts.7.up_proj.weight   model.layers.3.mlp.part1.up_proj.weight

Vectors, norms, the router of a mixture of experts, and the small matrices of state-space layers stay as they are
(`tensor_allows_quantization` in llama.cpp's `llama-quant.cpp`).
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from bitwright.spaces.unit import KEPT, Tensor, Unit

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+?(?:\.(?!part\.)[a-z]\w*?)*)(?:\.(\d+))?(?:\.part\.(\d+))?\.weight")
_OUTSIDE = re.compile(r"(\w+)\.weight")
_KEPT_KINDS = re.compile(
    rf"{KEPT}|.*norm.*|ffn_gate_inp.*|position_embd|token_types|ssm_(conv1d|x|dt)|shortconv\.conv|altup.*|laurel.*|per_layer_model_proj|time_mix_.*"
)
_GGUF, _EXPERTS, _WEIGHT = "blk.", "experts", ".weight"
_PART = re.compile(r"part(\d+)")


def expert_of(name: str) -> tuple[int, int]:
    """Parse layer and expert index from a tensor's name, -1 for either that the name does not have."""
    if name.startswith(_GGUF):
        block = _BLOCK.fullmatch(name)
        return (int(block[1]), int(block[3] or -1)) if block else (-1, -1)
    path = name.split(".")
    layer = next((int(part) for part in path if part.isdecimal()), -1)
    return layer, next((int(part) for before, part in pairwise(path) if before == _EXPERTS and part.isdecimal()), -1)


def part_of(name: str) -> int:
    """Parse the index of the channel range from a tensor's name, -1 for a whole tensor."""
    if name.startswith(_GGUF):
        block = _BLOCK.fullmatch(name)
        return int(block[4] or -1) if block else -1
    found = (_PART.fullmatch(part) for part in name.split("."))
    return next((int(part[1]) for part in found if part), -1)


def of_expert(stack: str, expert: int) -> str:
    """Return the name of an expert's matrix of a stack: its index follows `experts`, which is put before the last component where it is missing."""
    stem = stack.removesuffix(_WEIGHT)
    if stack.startswith(_GGUF):
        return f"{stem}.{expert}{_WEIGHT}"
    path = stem.split(".")
    place = path.index(_EXPERTS) if _EXPERTS in path else len(path) - 1
    before = path[: place + 1] if _EXPERTS in path else [*path[:place], _EXPERTS]
    after = path[place + 1 :] if _EXPERTS in path else path[place:]
    return ".".join([*before, str(expert), *after]) + _WEIGHT


def of_part(name: str, part: int) -> str:
    """Return the name of a range of channels of the matrix `name`."""
    stem = name.removesuffix(_WEIGHT)
    if name.startswith(_GGUF):
        return f"{stem}.part.{part}{_WEIGHT}"
    owner, _, last = stem.rpartition(".")
    return f"{owner}.part{part}.{last}{_WEIGHT}"


def block_of(name: str) -> str:
    """Return the name of the block of a tensor or unit, `blk.3` or `model.layers.3`; empty outside the blocks."""
    path = name.split(".")
    place = next((i for i, part in enumerate(path) if part.isdecimal()), -1)
    return ".".join(path[: place + 1])


def expert_path(unit: Unit) -> str:
    """Return the name of the expert that a unit is a matrix of: `blk.3.expert.7` or `model.layers.3.mlp.experts.7`."""
    if unit.name.startswith(_GGUF):
        return f"{block_of(unit.name)}.expert.{unit.expert}"
    before, _, _ = unit.name.partition(f".{_EXPERTS}.{unit.expert}.")
    return f"{before}.{_EXPERTS}.{unit.expert}"


def discover(tensors: Iterable[Tensor]) -> tuple[Unit, ...]:
    """Return one unit for each weight matrix among `tensors`, in their order.

    The token embedding and the output head are units like any other; where they are tied the file holds one tensor, so there is one unit.
    """
    units = []
    for tensor in tensors:
        kind = role_of(tensor)
        if kind and len(tensor.shape) >= 2 and not _KEPT_KINDS.fullmatch(kind):
            layer, expert = expert_of(tensor.name)
            units.append(Unit(tensor.name.removesuffix(_WEIGHT), layer, kind, (tensor,), expert))
    return tuple(units)


def role_of(tensor: Tensor) -> str:
    """Return the role of a tensor, such as `attn_q`: its `kind`, or for a GGUF tensor what its name says."""
    return tensor.kind or role(tensor.name)


def role(name: str) -> str:
    """Parse the role from a GGUF tensor's name: `attn_q` for `blk.3.attn_q.weight`, empty where the name has no role."""
    block, outside = _BLOCK.fullmatch(name), _OUTSIDE.fullmatch(name)
    return block[2] if block else outside[1] if outside else ""


def is_routed(name: str) -> bool:
    """Return whether a tensor is a matrix of routed experts, of one or of all in a stack, by its name."""
    return role(name).endswith("_exps") if name.startswith(_GGUF) else _EXPERTS in name.split(".")
