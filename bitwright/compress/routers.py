"""Where the routers of a mixture of experts lie."""

import re

from bitwright.compress.model import Model

_ROUTER = re.compile(r"blk\.(\d+)\.ffn_gate_inp\.weight")


def router_parameters(model: Model) -> dict[int, str]:
    """The named parameter `(n_experts, width)` that is the router of each layer which has one, by layer."""
    found = {name: _ROUTER.fullmatch(name) for name in model.pieces}
    return {int(match[1]): model.pieces[name][0].parameter for name, match in found.items() if match}
