"""Experts that are gone: routers that cannot choose them, for as long as a `with` block lasts.

The logit of an expert that is gone is minus infinity, so a softmax gives it nothing, the best of those left are chosen, and what the architecture
renormalises it renormalises over those. Where its twin is left (`twins.py`), the twin takes over: for a token that is sent to several experts its
logit is log(eᵃ + eᵇ), the mass of both, as both were among the chosen; for a token that is sent to one it is the larger of the two, so that it is
chosen exactly where either was.

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
from bitwright.compress.models.routers import router_parameters
from bitwright.compress.models.similar_experts import Expert
from bitwright.compress.models.source import Floats

_AHEAD = 1e-3  # of a logit, so that it is still ahead after a softmax in float32
#: the experts that are gone -> the index of the one of their layer that takes their tokens, -1 where nobody does
Gone = Mapping[Expert, int]


@dataclass(frozen=True)
class Dropped:
    """The weights `shape` of a matrix of an `expert` that is gone: zeros, with which nothing is computed. `heir` takes its tokens, -1 for nobody."""

    shape: tuple[int, int]
    expert: Expert
    heir: int

    def __call__(self) -> Floats:
        """The zeros."""
        return np.zeros(self.shape, dtype=np.float32)


class Rerouting(TorchFunctionMode):
    """`with Rerouting(model) as rerouting: rerouting.without(gone); ...`, or `forcing(layer, expert)`, as often as what is wanted changes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        parameters = dict(model.module.named_parameters())
        self._n_at_once = int(model.module.config.get_text_config().to_dict().get("num_experts_per_tok") or 0)
        self._layers = {(parameters[name].data_ptr(), tuple(parameters[name].shape)): layer for layer, name in router_parameters(model).items()}
        self._changes: dict[int, Callable[[Torch], Torch]] = {}

    def without(self, gone: Gone) -> None:
        """From now on without the experts that are `gone`, and with all others."""
        of_layers: dict[int, dict[int, int]] = {}
        for (layer, expert), heir in gone.items():
            of_layers.setdefault(layer, {})[expert] = heir
        self._changes = {layer: partial(rerouted, gone=of_layer, n_at_once=self._n_at_once) for layer, of_layer in of_layers.items()}

    def forcing(self, layer: int, expert: int) -> None:
        """From now on every token is sent to this expert of the layer too, in place of the last that it would be sent to; none is gone."""
        self._changes = {layer: partial(forced, expert=expert, n_at_once=self._n_at_once)}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, and reroute what it computed where that is a router's logits."""
        result = func(*args, **(kwargs or {}))
        if self._changes and func is torch.nn.functional.linear:
            layer = self._layers.get((args[1].data_ptr(), tuple(args[1].shape)), -1)
            if layer in self._changes:
                return self._changes[layer](result)
        return result


def forced(logits: Torch, expert: int, *, n_at_once: int) -> Torch:
    """The logits `(..., n_experts)` of a router with which every token is sent to `expert` too: where it is not among the best `n_at_once`, it takes
    the place of the last of them, and hardly more than its logit.
    """
    last = logits.topk(n_at_once, dim=-1).values[..., -1]
    raised = torch.maximum(logits[..., expert], last + _AHEAD)
    return logits.index_copy(-1, torch.tensor([expert], device=logits.device), raised[..., None])


def rerouted(logits: Torch, gone: Mapping[int, int], *, n_at_once: int) -> Torch:
    """The logits `(..., n_experts)` of a router without the experts that are `gone`, each with the index of its heir or -1; a token is sent to
    `n_at_once`.

    An heir that is gone as well passes on what it was left; where nobody is left the mass goes to all others.
    """
    columns, merged = list(logits.unbind(dim=-1)), torch.maximum if n_at_once == 1 else torch.logaddexp
    for expert in gone:
        heir = _last_heir(expert, gone)
        if heir >= 0:
            columns[heir] = merged(columns[heir], logits[..., expert])
    for expert in gone:
        columns[expert] = torch.full_like(columns[expert], -torch.inf)
    return torch.stack(columns, dim=-1)


def _last_heir(expert: int, gone: Mapping[int, int]) -> int:
    """The first of an expert's heirs that is not gone, -1 where there is none."""
    seen = {expert}
    while (expert := gone[expert]) >= 0 and expert in gone:
        if expert in seen:
            return -1
        seen.add(expert)
    return expert


@contextmanager
def without(model: Model, gone: Gone) -> Iterator[None]:
    """The model without the experts that are `gone`, for as long as the block lasts."""
    if not gone:
        yield
        return
    with Rerouting(model) as rerouting:
        rerouting.without(gone)
        yield
