"""Experts that are gone: routers that cannot choose them, for as long as a `with` block lasts.

The logit of an expert that is gone is minus infinity, so a softmax gives it nothing, the best of those left are chosen, and what the architecture
renormalises it renormalises over those. Where its twin is left (`twins.py`), the twin takes over: for a token that is sent to several experts its
logit is log(eᵃ + eᵇ), the mass of both, as both were among the chosen; for a token that is sent to one it is the larger of the two, so that it is
chosen exactly where either was.

A router is recognised by the address of its weights, as in `objectives/taps.py`, so no module is patched.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor as Torch
from torch.overrides import TorchFunctionMode

from bitwright.compress.model import Model
from bitwright.compress.routers import router_parameters
from bitwright.compress.source import Floats
from bitwright.compress.twins import Expert

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
    """`with Rerouting(model) as rerouting: rerouting.without(gone); ...`, as often as the experts that are gone change."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        parameters = dict(model.module.named_parameters())
        self._n_at_once = int(model.module.config.get_text_config().to_dict().get("num_experts_per_tok") or 0)
        self._layers = {(parameters[name].data_ptr(), tuple(parameters[name].shape)): layer for layer, name in router_parameters(model).items()}
        self._gone: dict[int, dict[int, int]] = {}

    def without(self, gone: Gone) -> None:
        """From now on without the experts that are `gone`, and with all others."""
        self._gone = {}
        for (layer, expert), heir in gone.items():
            self._gone.setdefault(layer, {})[expert] = heir

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, and reroute what it computed where that is a router's logits."""
        result = func(*args, **(kwargs or {}))
        if self._gone and func is torch.nn.functional.linear:
            layer = self._layers.get((args[1].data_ptr(), tuple(args[1].shape)), -1)
            if layer in self._gone:
                return rerouted(result, self._gone[layer], n_at_once=self._n_at_once)
        return result


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
