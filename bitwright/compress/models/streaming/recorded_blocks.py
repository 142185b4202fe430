"""Backward passes block by block: a block is run without a graph, and again with one when the gradient of its output is known.

Checkpointing at block boundaries (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016). What a model computes between its blocks keeps
its graph: gradients leave it at the input of a block and enter it again at an output.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor as Torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from bitwright.compress.models.streaming.hidden_states import HiddenStates, Kept
from bitwright.compress.models.streaming.stations import Station
from bitwright.errors import ModelError

Forward = Callable[..., Any]


class _Output(torch.autograd.Function):
    """Output of a block, whose gradient is collected instead of propagated."""

    @staticmethod
    def forward(ctx: Any, anchor: Torch, gradients: list[Torch | None], index: int, output: Torch) -> Torch:  # noqa: ARG004
        ctx.gradients, ctx.index = gradients, index
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Torch) -> tuple[None, None, None, None]:
        before = ctx.gradients[ctx.index]
        ctx.gradients[ctx.index] = gradients[0] if before is None else before + gradients[0]
        return None, None, None, None


@dataclass(eq=False)
class Run:
    """Run of a `station` in a forward pass. Of a block it holds what is needed to run it again, of others nothing."""

    station: Station
    forward: Forward | None = None
    given: list[Any] = field(default_factory=list)
    spec: TreeSpec | None = None
    inputs: list[tuple[int, GradientEdge, Kept]] = field(default_factory=list)
    gradients: list[Torch | None] = field(default_factory=list)


#: gradients to propagate further, each with the edge of the graph that it enters
Pending = list[tuple[GradientEdge, Torch]]


def _require_alone(given: Any, n_before: int) -> None:
    """Require that a block hands on its output alone, and leaves nothing for later blocks in what it was `given`.

    Raises:
        ModelError: it does.
    """
    after = tree_flatten(given)[0]
    inside = [value for each in after if isinstance(each, Mapping) for value in tree_flatten([*each.values()])[0]]
    if len(after) != n_before or any(isinstance(value, Torch) for value in inside):
        raise ModelError(
            "Gradients of a streamed model go from block to block by hidden states; blocks of this one hand on more: choose --sensitivity "
            "importance, or give more --search-memory."
        )


def needs_gradient(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a gradient is wanted of any argument."""
    return torch.is_grad_enabled() and any(isinstance(value, Torch) and value.requires_grad for value in tree_flatten((args, kwargs))[0])


def recorded(station: Station, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], *, hidden: HiddenStates) -> tuple[Any, Run]:
    """Run a block without a graph; return its output, with the graph of what follows, and the record of the run."""
    given, spec = tree_flatten((args, kwargs))
    wanted = [i for i, value in enumerate(given) if isinstance(value, Torch) and value.requires_grad]
    edges = {i: get_gradient_edge(given[i]) for i in wanted}
    given = [value.detach() if i in edges else value for i, value in enumerate(given)]
    with torch.no_grad():
        plain, named = tree_unflatten(given, spec)
        output = forward(*plain, **named)
    _require_alone((plain, named), len(given))
    kept = [(i, edges[i], hidden.keep(given[i])) for i in wanted]
    run = Run(station, forward, [None if i in edges else value for i, value in enumerate(given)], spec, kept)
    anchor = torch.zeros((), requires_grad=True)

    def entered(value: Any) -> Any:
        if not _has_gradient(value):
            return value
        run.gradients.append(None)
        return _Output.apply(anchor, run.gradients, len(run.gradients) - 1, value)  # type: ignore[no-untyped-call]

    return tree_map(entered, output), run


def differentiated(run: Run, *, hidden: HiddenStates, device: torch.device) -> Pending:
    """Run a block again, and propagate the gradients of its output back to its inputs."""
    inputs = {i: hidden.take(kept, device) for i, _, kept in run.inputs}
    if run.forward is None or run.spec is None or all(gradient is None for gradient in run.gradients):
        return []
    leaves = {i: states.detach().requires_grad_(True) for i, states in inputs.items()}
    with torch.enable_grad():
        plain, named = tree_unflatten([leaves.get(i, value) for i, value in enumerate(run.given)], run.spec)
        outputs = [value for value in tree_flatten(run.forward(*plain, **named))[0] if _has_gradient(value)]
    pairs = [(output, gradient) for output, gradient in zip(outputs, run.gradients, strict=True) if gradient is not None]
    run.gradients.clear()
    torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])
    return [(edge, gradient) for i, edge, _ in run.inputs if (gradient := leaves[i].grad) is not None]


def propagate(pending: Pending) -> None:
    """Propagate gradients through what lies outside of the blocks; parts of it may have a share in several blocks."""
    if pending:
        torch.autograd.backward([edge for edge, _ in pending], [gradient for _, gradient in pending], retain_graph=True)


def towards_blocks(pending: Pending) -> tuple[Pending, Pending]:
    """Return those gradients that go on to the output of an earlier block, and those that do not, such as to the embedding: these are propagated
    together in the end, so that hooks see their sum.
    """
    on = [_reaches_block(edge.node) for edge, _ in pending]
    return [one for one, is_on in zip(pending, on, strict=True) if is_on], [one for one, is_on in zip(pending, on, strict=True) if not is_on]


def _reaches_block(start: Any) -> bool:
    seen, waiting = set[Any](), [start]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Output._backward_cls):
            return True
        if node not in seen:
            seen.add(node)
            waiting += [earlier for earlier, _ in node.next_functions if earlier is not None]
    return False


def hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Torch]:
    """Return the hidden states among the arguments of a block: the first tensor of floats."""
    return [value for value in tree_flatten((args, kwargs))[0] if _has_gradient(value)][:1]


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Torch) and value.is_floating_point()
