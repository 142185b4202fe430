"""A router that cannot choose the experts which a checkpoint lacks: `dropping.rerouted` within the module, for whoever loads it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor as Torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bitwright.compress import rerouted


class _Rerouting(TorchFunctionMode):
    """Reroutes what linear layers compute while it is entered; a router has one."""

    def __init__(self, gone: Mapping[int, int], n_at_once: int) -> None:
        super().__init__()
        self._gone, self._n_at_once = gone, n_at_once

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return rerouted(result, self._gone, n_at_once=self._n_at_once) if func is torch.nn.functional.linear else result


class ReroutedRouter(nn.Module):
    """Stands in for `router`, whose weight it holds under the same name. `gone` has the heir of each expert that is not there, -1 for nobody; a token
    is sent to `n_at_once`.
    """

    def __init__(self, router: nn.Module, gone: Mapping[int, int], *, n_at_once: int) -> None:
        super().__init__()
        self.gone, self._n_at_once = dict(gone), n_at_once
        self.weight = router.get_parameter("weight")
        self._router = (router,)  # a tuple, so that its parameters are not counted again

    def forward(self, hidden_states: Torch) -> Any:
        """What the router gives, of the experts that are there."""
        with _Rerouting(self.gone, self._n_at_once):
            return torch.func.functional_call(self._router[0], {"weight": self.weight}, (hidden_states,))
