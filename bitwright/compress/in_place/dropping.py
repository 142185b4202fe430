"""Dropped experts: routers that cannot choose them, within a `with` block.

The logit of a dropped expert is minus infinity, so that its softmax weight is 0, the top k are taken among the others, and any renormalisation is
over those. A replacement (`similar_experts.py`) takes its tokens: with top-k routing its logit becomes log(eᵃ + eᵇ), the probability of both; with
top-1 routing the larger of the two, so that it is chosen exactly when either was.

A router is recognised by the address of its weights, as in `objectives/text/taps.py`, so no module is patched.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor as Torch
from torch.overrides import TorchFunctionMode

from bitwright.compress.models.model import Model
from bitwright.compress.models.residence import address
from bitwright.compress.models.routers import router_parameters
from bitwright.compress.models.similar_experts import Expert
from bitwright.compress.models.source import Floats

_AHEAD = 1e-3  # lead of a logit that survives a softmax in float32
#: dropped experts -> index of the replacement in their layer, -1 for none
Replacements = Mapping[Expert, int]


@dataclass(frozen=True)
class DroppedWeights:
    """Zero weights of the `shape` of a matrix of a dropped `expert`. `replacement` is the expert that takes its tokens, -1 for none."""

    shape: tuple[int, int]
    expert: Expert
    replacement: int

    def __call__(self) -> Floats:
        """Return zero weights of the tensor's shape."""
        return np.zeros(self.shape, dtype=np.float32)

    @property
    def gone(self) -> Replacements:
        """The expert, with its replacement."""
        return {self.expert: self.replacement}


@dataclass(frozen=True)
class NarrowedRouter:
    """Weights of the router of a `layer`, as `whole` gives them, by which the experts `dropped` cannot be chosen. Their own weights do not matter."""

    whole: Callable[[], Floats]
    layer: int
    dropped: tuple[int, ...]

    def __call__(self) -> Floats:
        """Return the weights `(n_experts, width)`."""
        return self.whole()

    @property
    def gone(self) -> Replacements:
        """The experts, none of which has a replacement."""
        return {(self.layer, expert): -1 for expert in self.dropped}


class Rerouting(TorchFunctionMode):
    """Router changes within a block: `with Rerouting(model) as rerouting: rerouting.without(gone); ...`, or `forcing(layer, expert)`; each call
    replaces the last.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        parameters = dict(model.module.named_parameters())
        self._n_at_once = model.source.n_experts_used
        self._layers = {address(parameters[name]): layer for layer, name in router_parameters(model).items()}
        self._changes: dict[int, Callable[[Torch], Torch]] = {}

    def without(self, gone: Replacements) -> None:
        """Drop the experts `gone`, and restore all others."""
        of_layers: dict[int, dict[int, int]] = {}
        for (layer, expert), replacement in gone.items():
            of_layers.setdefault(layer, {})[expert] = replacement
        self._changes = {layer: partial(rerouted, gone=of_layer, n_at_once=self._n_at_once) for layer, of_layer in of_layers.items()}

    def forcing(self, layer: int, expert: int) -> None:
        """Send every token to this expert of the layer too, in place of the last of its top k, and restore all dropped experts."""
        self._changes = {layer: partial(forced, expert=expert, n_at_once=self._n_at_once)}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and change its output if it is a router's logits."""
        result = func(*args, **(kwargs or {}))
        if self._changes and func is torch.nn.functional.linear:
            layer = self._layers.get(address(args[1]), -1)
            if layer in self._changes:
                return self._changes[layer](result)
        return result


def forced(logits: Torch, expert: int, *, n_at_once: int) -> Torch:
    """Change router logits `(..., n_experts)` so that `expert` is among the top `n_at_once` of every token: if it is not, it gets a logit just above
    the last of them.
    """
    last = logits.topk(n_at_once, dim=-1).values[..., -1]
    raised = torch.maximum(logits[..., expert], last + _AHEAD)
    return logits.index_copy(-1, torch.tensor([expert], device=logits.device), raised[..., None])


def rerouted(logits: Torch, gone: Mapping[int, int], *, n_at_once: int) -> Torch:
    """Change router logits `(..., n_experts)` so that the experts `gone`, each mapped to its replacement or -1, are never chosen; `n_at_once` is the
    router's top k.

    A replacement that is dropped as well passes its share on; without a replacement the probability goes to all other experts.
    """
    columns, merged = list(logits.unbind(dim=-1)), torch.maximum if n_at_once == 1 else torch.logaddexp
    for expert in gone:
        replacement = _last_replacement(expert, gone)
        if replacement >= 0:
            columns[replacement] = merged(columns[replacement], logits[..., expert])
    for expert in gone:
        columns[expert] = torch.full_like(columns[expert], -torch.inf)
    return torch.stack(columns, dim=-1)


def _last_replacement(expert: int, gone: Mapping[int, int]) -> int:
    """Follow the replacements of an expert to the first that is not dropped; -1 if there is none."""
    seen = {expert}
    while (expert := gone[expert]) >= 0 and expert in gone:
        if expert in seen:
            return -1
        seen.add(expert)
    return expert


@contextmanager
def without(model: Model, gone: Replacements) -> Iterator[None]:
    """Drop the experts `gone` within the block."""
    if not gone:
        yield
        return
    with Rerouting(model) as rerouting:
        rerouting.without(gone)
        yield
