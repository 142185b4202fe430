"""Where the routers of a mixture of experts lie."""

import re

from bitwright.compress.models.model import Model

_ROUTER = re.compile(r"blk\.(\d+)\.ffn_gate_inp\.weight")
_CORRECTED = re.compile(r"blk\.\d+\.exp_probs_b\.bias")


def router_tensors(model: Model) -> dict[int, str]:
    """The engine's tensor `(n_experts, width)` that is the router of each layer which has one, by layer."""
    found = {name: _ROUTER.fullmatch(name) for name in model.pieces}
    return {int(match[1]): name for name, match in found.items() if match}


def router_parameters(model: Model) -> dict[int, str]:
    """The same as named parameters of the module."""
    return {layer: model.pieces[name][0].parameter for layer, name in router_tensors(model).items()}


def is_corrected(model: Model) -> bool:
    """Whether the routers choose by the sigmoid of each logit and a correction, as DeepSeek-V3's do (arXiv 2412.19437, equations 13 to 16), and not
    by a softmax.
    """
    return any(_CORRECTED.fullmatch(tensor.name) for tensor in model.tensors)
