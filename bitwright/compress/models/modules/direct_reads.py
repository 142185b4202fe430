"""Layers whose weight is read by other code than their own, found in a forward pass.

A module that keeps weights packed replaces a layer and unpacks where the layer is called. Other code that reads `layer.weight` itself, as some
state-space layers do, would find packed bytes there. Nor is a layer packed that does not multiply its whole input by its weight, as
DeepSeek-V4's grouped one: the shape of its output shows it.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

_N_TOKENS = 16
_WEIGHT = ".weight"


class _Watching(TorchFunctionMode):
    """Notes each weight that a function of torch takes outside the forward pass of its own layer."""

    def __init__(self, owners: dict[int, tuple[str, nn.Linear]]) -> None:
        super().__init__()
        self._owners, self.running, self.found = owners, list[nn.Module](), dict[str, None]()

    def left(self, inner: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        """Note that a module was run, and whether it is a layer that returned anything else than a product with what it was `given`."""
        self.running.pop()
        for name, owner in self._owners.values():
            if owner is inner and given and output.shape != (*given[0].shape[:-1], owner.out_features):
                self.found[name] = None

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for taken in tree_leaves((args, kwargs)):  # torch.cat takes a list
            name, owner = self._owners.get(id(taken), ("", None))
            if owner is not None and (not self.running or self.running[-1] is not owner):
                self.found[name] = None
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def direct_reads(module: PreTrainedModel, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of `names`, weights of linear layers, that a forward pass over a few tokens reads elsewhere, or multiplies by otherwise."""
    layers = {name: module.get_submodule(name.removesuffix(_WEIGHT)) for name in names if name.endswith(_WEIGHT)}
    linear = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    watching = _Watching({id(layer.weight): (name, layer) for name, layer in linear.items()})
    ids = torch.arange(_N_TOKENS, device=next(module.parameters()).device)[None] + 1
    with ExitStack() as stack:
        before = register_module_forward_pre_hook(lambda inner, _: watching.running.append(inner))
        stack.callback(before.remove)
        after = register_module_forward_hook(watching.left, always_call=True)
        stack.callback(after.remove)
        stack.enter_context(watching)
        module(ids, use_cache=False)
    return tuple(watching.found)


def sentence_of(names: tuple[str, ...]) -> str:
    """Return the sentence that says which layers stay floats, and why."""
    return f"{len(names)} layers stay floats, first {names[0]}: other code than a product with their input reads their weight, and finds it packed."
