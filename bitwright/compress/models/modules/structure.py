"""Roles of a module's parameters, found in its structure: which are matrices that can be quantized, and what each is for.

Linear layers (also GPT-2's `Conv1D`), the token embedding and stacks of experts can be quantized. A stack is a 3-D parameter `(n_experts, …)` beside
which a router `(n_experts, width)` stands; routers stay as they are. Roles are those of the field (`attn_q`, `ffn_down`, `ffn_up_exps`), by which
rules and proxies know a matrix; one that has none is called by its path within the block (`mixer.in_proj`).
"""

from collections.abc import Iterator, Mapping

from torch import Tensor as Torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bitwright.compress.models.module_state import weights_of
from bitwright.spaces import KEPT

EMBEDDING, HEAD, ROUTER = "token_embd", "output", "ffn_gate_inp"
STACKED, _SHARED = "_exps", "_shexp"
_ATTENTION = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
_GATES, _DOWNS = ("gate_proj", "w1"), ("down_proj", "w2")
_EXPERTS = "experts"
_WEIGHT = ".weight"


def kinds_of(module: PreTrainedModel) -> dict[str, str]:
    """Return the role of each parameter of `module`, by name; `KEPT` for those that stay as they are."""
    weights, language = weights_of(module), _language_names(module)
    kinds = dict.fromkeys(weights, KEPT)
    for path, layer in module.named_modules():
        name = f"{path}{_WEIGHT}"
        if isinstance(layer, nn.Linear | Conv1D) and name in weights and 1 not in weights[name].shape and _is_within(name, language):
            kinds[name] = _linear_role(module, path)
    routers = dict(_routers(weights))
    for name, router in routers.items():
        if _is_within(name, language):
            kinds[name] = f"{_within_block(name)}{STACKED}"
            kinds[router] = ROUTER
    embedding = _name_of(weights, module.get_input_embeddings())
    if embedding:
        kinds[embedding] = EMBEDDING
    head = _name_of(weights, module.get_output_embeddings())  # type: ignore[no-untyped-call]
    if head and head != embedding:
        kinds[head] = HEAD
    return kinds


def transposed(module: PreTrainedModel) -> frozenset[str]:
    """Return the names of matrices and stacks that a module multiplies by from the right: their transposes are `(n_outputs, n_inputs)`."""
    found = {f"{path}{_WEIGHT}" for path, layer in module.named_modules() if isinstance(layer, Conv1D)}
    weights = weights_of(module)
    for name, router in _routers(weights):
        owner, width = module.get_submodule(name.rpartition(".")[0]), weights[router].shape[1]
        if vars(owner).get("is_transposed", _is_from_the_right(dict(owner.named_parameters(recurse=False)), width)):
            found.add(name)
    return frozenset(found)


def n_stacked(weight: Torch, kind: str) -> int:
    """Return the number of experts in a parameter of the role `kind`, 0 where it is no stack."""
    return weight.shape[0] if weight.dim() == 3 and kind.endswith(STACKED) else 0


def _language_names(module: PreTrainedModel) -> tuple[str, ...]:
    """Return the paths within which the language model's parameters lie, one of them empty where that is all of it."""
    if module.config.get_text_config() is module.config:
        return ("",)
    decoder, head = module.get_decoder(), module.get_output_embeddings()  # type: ignore[no-untyped-call]
    return tuple(path for path, inner in module.named_modules() if inner is decoder or inner is head)


def _is_within(name: str, paths: tuple[str, ...]) -> bool:
    return any(not path or name.startswith(f"{path}.") for path in paths)


def _routers(weights: dict[str, Torch]) -> Iterator[tuple[str, str]]:
    """Yield each stack of experts with its router: the first matrix beside its module with a row for each expert, as wide as an input of theirs."""
    matrices = {name: weight for name, weight in weights.items() if weight.dim() == 2}
    for name, weight in weights.items():
        owner = name.rpartition(".")[0]
        beside = f"{owner.rpartition('.')[0]}."
        if weight.dim() == 3:
            routers = (
                other
                for other, matrix in matrices.items()
                if other.startswith(beside)
                and not other.startswith(f"{owner}.")
                and matrix.shape[0] == weight.shape[0]
                and matrix.shape[1] in weight.shape[1:]
            )
            router = next(routers, "")
            if router:
                yield name, router


def _is_from_the_right(stacks: Mapping[str, Torch], width: int) -> bool:
    """Return whether experts that map `width` to `width` are multiplied by from the right, by the shapes of their matrices."""
    shapes = [tuple(stack.shape[1:]) for stack in stacks.values() if stack.dim() == 3]
    first, last = shapes[0], shapes[-1]
    return first[1] != width or (first[0] == width and last[1] == width and last[0] != width)


def _linear_role(module: PreTrainedModel, path: str) -> str:
    """Return the role of the linear layer at `path`."""
    owner, _, leaf = path.rpartition(".")
    around = module.get_submodule(owner)
    beside = {name: layer for name, layer in around.named_children() if isinstance(layer, nn.Linear)}
    if {"q_proj", "k_proj", "v_proj"} <= beside.keys() and leaf in _ATTENTION:
        return _ATTENTION[leaf]
    part = _gated_part(beside).get(leaf)
    if part is None:
        return _within_block(path)
    if _EXPERTS in owner.split("."):
        return f"{part}{STACKED}"
    return f"{part}{_SHARED}" if "shared" in owner.rpartition(".")[2] else part


def _gated_part(layers: dict[str, nn.Linear]) -> dict[str, str]:
    """Return the roles of the three layers of a gated feed-forward part, by name; none where they are none."""
    gate = next((name for name in _GATES if name in layers), "")
    down = next((name for name in _DOWNS if name in layers), "")
    up = next((name for name in ("up_proj", "w3") if name in layers), "")
    if not (gate and down and up):
        return {}
    shapes = {name: tuple(layers[name].weight.shape) for name in (gate, up, down)}
    is_gated = shapes[gate] == shapes[up] == shapes[down][::-1]
    return {gate: "ffn_gate", up: "ffn_up", down: "ffn_down"} if is_gated else {}


def _within_block(name: str) -> str:
    """Return the path after the last number but those of experts, without numbers: `self_attn.dense` for `transformer.h.3.self_attn.dense.weight`."""
    path = name.removesuffix(_WEIGHT).split(".")
    first = next((i for i, part in enumerate(path) if part.isdecimal()), -1)
    return ".".join(part for part in path[first + 1 :] if not part.isdecimal())


def _name_of(weights: dict[str, Torch], layer: nn.Module | None) -> str:
    """Return the name of a layer's weight, empty where it is no parameter of its own."""
    if layer is None:
        return ""
    own = vars(layer).get("_parameters", {}).get("weight")
    return next((name for name, weight in weights.items() if weight is own), "")
