"""Routers of a mixture of experts."""

import re
from collections.abc import Iterable

from bitwright.compress.models.model import Model
from bitwright.compress.models.modules.structure import ROUTER, STACKED
from bitwright.compress.models.source import Source
from bitwright.spaces import Tensor, expert_of, role_of

_CORRECTED = re.compile(r"blk\.\d+\.exp_probs_b\.bias|.*e_score_correction_bias")


def router_tensors(model: Model) -> dict[int, str]:
    """Return the name of each layer's router tensor `(n_experts, width)`, by layer."""
    return {expert_of(tensor.name)[0]: tensor.name for tensor in model.tensors if tensor.name in model.pieces and role_of(tensor) == ROUTER}


def router_parameters(model: Model) -> dict[int, str]:
    """Return the name of each layer's router parameter in the module, by layer."""
    return {layer: model.pieces[name][0].parameter for layer, name in router_tensors(model).items()}


def is_corrected(model: Model) -> bool:
    """Return whether the routers select experts by a sigmoid of each logit and a correction, as in DeepSeek-V3 (arXiv 2412.19437, equations 13 to
    16), and not by a softmax.
    """
    return has_corrections(model.tensors)


def is_of_experts(tensor: Tensor) -> bool:
    """Return whether the first dimension of a tensor counts the routed experts of its block: of the router, and of stacks."""
    return role_of(tensor) == ROUTER or (len(tensor.shape) > 2 and role_of(tensor).endswith(STACKED))


def n_experts(source: Source) -> dict[int, int]:
    """Return the number of routed experts of each layer that has some: the rows of its router."""
    return {expert_of(tensor.name)[0]: tensor.shape[0] for tensor in source.tensors if role_of(tensor) == ROUTER}


def has_corrections(tensors: Iterable[Tensor]) -> bool:
    """Return whether routers add a correction to the score of each expert."""
    return any(_CORRECTED.fullmatch(tensor.name) for tensor in tensors)
