"""REAP: the router-weighted norm of an expert's output, by which experts are pruned (Lasby et al., "REAP the Experts", arXiv 2510.13999).

With X_j the tokens sent to expert j, g_j the router's weight of its output and f_j the output:

    S_j = 1/|X_j| · Σ_{x ∈ X_j} g_j(x) ‖f_j(x)‖₂

An expert with little of it adds little to the sum where it is chosen. One that no token is sent to has 0, as published. Cost: one forward pass over
the tokens.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives import RouterCall, Tap, Tapped, Use, hook_routers
from bitwright.predictors.sensitivity.block_hooks import run_subject
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import expert_of, role_of

_DOWN = "ffn_down_exps"


def expert_saliencies(subject: Subject) -> NDArray[np.float64]:
    """Return S_j of every routed expert `(n_layers, n_experts)`, of a model whose experts are in stacks, zero where a layer has fewer."""
    return cached(subject, "REAP", lambda: _measured(subject))


def _measured(subject: Subject) -> NDArray[np.float64]:
    downs = {t.name: t for t in subject.model.tensors if t.name in subject.model.pieces and role_of(t) == _DOWN}
    norms = _Norms({name: expert_of(name)[0] for name in downs})
    with hook_routers(subject.model, norms.routed), Tapped(subject.model, norms):
        run_subject(subject, "Measuring the outputs of experts")
    found = np.zeros((1 + max(norms.layers.values()), max(tensor.shape[0] for tensor in downs.values())))
    for (layer, expert), total in norms.sums.items():
        found[layer, expert] = total / norms.n_tokens[layer, expert]
    return found


@dataclass(eq=False)
class _Norms(Tap):
    """Sums of g ‖f‖ over tokens and numbers of tokens, by layer and expert. `layers` are those of the down stacks by name."""

    layers: dict[str, int]
    sums: dict[tuple[int, int], float] = field(default_factory=dict)
    n_tokens: dict[tuple[int, int], int] = field(default_factory=dict)
    _routed: dict[int, RouterCall] = field(default_factory=dict)

    def routed(self, routed: RouterCall) -> None:
        """Remember the last selection of a router: its experts run next."""
        self._routed[routed.layer] = routed

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        """Add the norms of an expert's outputs."""
        for use in uses:
            if use.tensor in self.layers and len(y):
                layer = self.layers[use.tensor]
                weighted = self._routed[layer].weights_of(use.group).double() * y.double().norm(dim=-1)
                place = layer, use.group
                self.sums[place] = self.sums.get(place, 0.0) + float(weighted.sum())
                self.n_tokens[place] = self.n_tokens.get(place, 0) + len(y)

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore look-ups: experts have none."""
