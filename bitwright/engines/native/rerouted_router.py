"""Router module that cannot choose dropped experts: `dropping.rerouted` inside the loaded model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from bitwright.compress import rerouted


class _Rerouting(TorchFunctionMode):
    """Torch function mode that changes the logits of linear layers while it is active; each router has one."""

    def __init__(self, gone: Mapping[int, int], n_at_once: int) -> None:
        super().__init__()
        self._gone, self._n_at_once = gone, n_at_once

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return rerouted(result, self._gone, n_at_once=self._n_at_once) if func is torch.nn.functional.linear else result


class ReroutedRouter(nn.Module):
    """Router in place of `router`, with its state under the same names. `gone` maps each dropped expert to its replacement, -1 for none; `n_at_once`
    is the router's top k.
    """

    def __init__(self, router: nn.Module, gone: Mapping[int, int], *, n_at_once: int) -> None:
        super().__init__()
        self.gone, self._n_at_once = dict(gone), n_at_once
        for name, parameter in router.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in router.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, inner in router.named_children():
            self.add_module(name, inner)
        self._router = (router,)  # a tuple, so that its parameters are not registered again

    def forward(self, *given: Any, **named: Any) -> Any:
        """Return the router's output over the experts that are left."""
        state = dict(self.named_parameters()) | dict(self.named_buffers())
        with _Rerouting(self.gone, self._n_at_once):
            return torch.func.functional_call(self._router[0], state, given, named)


def router_path(module: nn.Module, parameter: str) -> str:
    """Return the path of the router whose matrix is `parameter`: the outermost module that has no other matrix, since some read that of a layer in
    them without calling it.
    """
    own, path = module.get_parameter(parameter), parameter.rpartition(".")[0]
    while all(weight is own or weight.dim() < 2 for weight in module.get_submodule(path.rpartition(".")[0]).parameters()):
        path = path.rpartition(".")[0]
    return path
