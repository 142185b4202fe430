"""Routing statistics of a mixture of experts: how often each expert is chosen in one pass over a text, and with which weights.

The quantities are those of PMQ (MC-MoE, Huang et al., ICLR 2025, section 3.2): the selection frequency of an expert, and its router probability when
selected, before renormalisation over the selected experts. The weight that multiplies the expert's output is recorded too.

Routers are found by their parameters, not by module names. Most of those of transformers return the logits, the weights of the selected experts and
their indices; where one returns only logits, the top k are taken, with their softmax as weights.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_hook

from bitwright.compress import Model, is_corrected, router_parameters
from bitwright.objectives.store import Store
from bitwright.objectives.text.forward_pass import run_forward
from bitwright.objectives.text.tokens import Tokens
from bitwright.progress import Progress


@dataclass(frozen=True, eq=False)
class Routing:
    """Routing statistics, one row for each routed expert: its `layer` and its index `expert` in the layer, all `(n_experts,)`.

    Of `n_read` tokens, `n_chosen` were routed to the expert, in a layer with `n_at_once` experts per token. `probability` and `weight` are the
    router's probability and the weight of the expert's output, summed over the tokens routed to it. A model without experts has no rows.
    """

    layer: NDArray[np.int64]
    expert: NDArray[np.int64]
    n_read: NDArray[np.int64]
    n_at_once: NDArray[np.int64]
    n_chosen: NDArray[np.int64]
    probability: NDArray[np.float64]
    weight: NDArray[np.float64]

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Return the share of the tokens routed to each expert `(n_experts,)`; the sum over a layer is `n_at_once`."""
        return self.n_chosen / self.n_read

    @property
    def mean_weight(self) -> NDArray[np.float64]:
        """Return the mean weight of each expert's output when selected `(n_experts,)`, 0 for an expert never selected."""
        return self.weight / np.maximum(self.n_chosen, 1)

    def shares(self, values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Divide `values` `(n_experts,)` by their sum in the layer."""
        totals = np.bincount(self.layer, weights=values)
        return values / np.where(totals > 0, totals, 1.0)[self.layer]

    def row_of(self, layer: int, expert: int) -> int:
        """Return the row of an expert.

        Raises:
            KeyError: there is no such expert.
        """
        found = np.flatnonzero((self.layer == layer) & (self.expert == expert))
        if not len(found):
            raise KeyError(f"expert {expert} of layer {layer}")
        return int(found[0])

    def to_array(self) -> NDArray[np.float64]:
        """Return all fields as one array `(7, n_experts)`, in their order."""
        return np.stack([np.asarray(row, dtype=np.float64) for row in astuple(self)])


def routing_from(array: NDArray[np.generic]) -> Routing:
    """Return the routing of an array `(7, n_experts)`: the inverse of `Routing.to_array`."""
    layer, expert, n_read, n_at_once, n_chosen = array[:5].astype(np.int64)
    probability, weight = array[5:].astype(np.float64)
    return Routing(layer=layer, expert=expert, n_read=n_read, n_at_once=n_at_once, n_chosen=n_chosen, probability=probability, weight=weight)


NO_ROUTING = routing_from(np.zeros((7, 0)))


def added(parts: Sequence[Routing]) -> Routing:
    """Sum the routing of one model over several texts, at least one."""
    arrays = np.stack([part.to_array() for part in parts])
    whole = arrays[0].copy()
    whole[[2, 4, 5, 6]] = arrays[:, [2, 4, 5, 6]].sum(axis=0)  # tokens and sums; layer, expert and n_at_once are the same in all
    return routing_from(whole)


@dataclass(frozen=True, eq=False)
class RouterCall:
    """Call of the router of a `layer`: its input `x` `(n_tokens, width)`, its `logits` `(n_tokens, n_experts)`, and the `weights` of the experts
    `chosen`, both `(n_tokens, k)`.
    """

    layer: int
    x: Torch
    logits: Torch
    weights: Torch
    chosen: Torch

    def weights_of(self, expert: int) -> Torch:
        """Return the weights of the tokens sent to an expert `(n_tokens_of_it,)`, in the order in which experts run them: by the expert's rank among
        a token's experts, then by token.
        """
        n_at_once = self.chosen.shape[-1]
        return self.weights.reshape(-1, n_at_once).T[expert == self.chosen.reshape(-1, n_at_once).T]


@contextmanager
def hook_routers(model: Model, callback: Callable[[RouterCall], None]) -> Iterator[None]:
    """Call `callback` with every router call inside the `with` block. Where a router's matrix is in a layer that is not called, as in LongCat, the
    module around that layer is the router.
    """
    names = router_parameters(model)
    paths = {layer: name.rpartition(".")[0] for layer, name in names.items()}
    routers = {model.module.get_submodule(path): layer for layer, path in paths.items()}
    around = {model.module.get_submodule(path.rpartition(".")[0]): layer for layer, path in paths.items()}
    n_experts = {layer: model.module.get_parameter(name).shape[0] for layer, name in names.items()}
    called: set[int] = set()

    def hook(module: Module, given: Any, output: Any) -> None:
        layer = routers.get(module, around.get(module, -1))
        if module in routers or (module in around and layer not in called):
            callback(_router_call(layer, given[0], output, n_experts=n_experts[layer], n_at_once=model.source.n_experts_used))
        if module in routers:
            called.add(layer)
        elif module in around:
            called.discard(layer)

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _router_call(layer: int, x: Torch, output: Any, *, n_experts: int, n_at_once: int) -> RouterCall:
    """Return the call of a router, whose top k is taken from the logits where it does not return it."""
    parts = [part for part in (output if isinstance(output, tuple) else (output,)) if isinstance(part, Torch)]
    x = x.reshape(-1, x.shape[-1])
    if len(parts) > 2 and not parts[2].is_floating_point():
        return RouterCall(layer, x, *parts[:3])
    *_, logits = (part.reshape(-1, n_experts) for part in parts if part.shape[-1] == n_experts)  # Llama 4 returns its scores before them
    weights, chosen = logits.softmax(dim=-1).topk(n_at_once, dim=-1)
    return RouterCall(layer, x, logits, weights, chosen)


def routing_key(ids: NDArray[np.int64]) -> str:
    """Return the store key of the routing of tokens `ids` `(n_sequences, length)`."""
    return f"routing/{hashlib.sha256(repr(ids.shape).encode() + ids.tobytes()).hexdigest()[:12]}"


def cached_routing(model: Model, tokens: Tokens, *, store: Store, progress: Progress) -> Routing:
    """Return the routing of `tokens` from the store, collecting it first if absent."""
    key = routing_key(tokens.ids)
    if not store.has_array(key):
        store.put_array(key, collect_routing(model, tokens, progress=progress).to_array())
    return routing_from(store.array(key))


def collect_routing(model: Model, tokens: Tokens, *, progress: Progress) -> Routing:
    """Collect the routing statistics of the model on `tokens` in one forward pass."""
    scores = torch.sigmoid if is_corrected(model) else _softmax
    counting = {layer: _Counts(scores) for layer in router_parameters(model)}
    if not counting:
        return NO_ROUTING
    with (
        progress.stage("Collecting routing statistics", tokens.n_tokens) as advance,
        hook_routers(model, lambda routed: counting[routed.layer].add(routed)),
    ):
        run_forward(model, tokens, advance)
    return routing_from(np.concatenate([counts.rows(layer, tokens.n_tokens) for layer, counts in counting.items()], axis=1))


def _softmax(logits: Torch) -> Torch:
    return logits.softmax(dim=-1)


class _Counts:
    """Sums over the tokens of one router."""

    def __init__(self, scores: Callable[[Torch], Torch]) -> None:
        """Count with `scores`, which maps logits to the router's probabilities, both `(n_tokens, n_experts)`."""
        self._scores = scores
        self._sums, self._n_at_once = np.zeros((3, 1)), 0

    def add(self, routed: RouterCall) -> None:
        """Count the tokens of one router call."""
        n_experts, selected = routed.logits.shape[-1], routed.chosen.reshape(-1).cpu().numpy()
        probabilities = self._scores(routed.logits.double()).gather(-1, routed.chosen)
        counted = [torch.ones_like(probabilities), probabilities, routed.weights]
        sums = np.stack([np.bincount(selected, values.reshape(-1).double().cpu().numpy(), n_experts) for values in counted])
        self._sums, self._n_at_once = self._sums + sums, routed.chosen.shape[-1]

    def rows(self, layer: int, n_read: int) -> NDArray[np.float64]:
        """Return the rows of `Routing.to_array`, `(7, n_experts)`."""
        n_experts = self._sums.shape[1]
        constant = np.repeat([[layer], [0], [n_read], [self._n_at_once]], n_experts, axis=1).astype(np.float64)
        constant[1] = np.arange(n_experts)
        return np.concatenate([constant, self._sums])
