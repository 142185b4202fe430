"""Micro-experts: what each channel inside an expert gives to the output of its layer (CAMERA, AAAI 2026).

A gated expert is a sum over its channels c, each a row of gate and of up and a column of down, which CAMERA calls a micro-expert. With a_c the value
of the channel, weighted by the router, at each token that is sent to the expert (0 at all others):

    a_c = g(x) · act(x·gate_c) · (x·up_c)        energy E_c = ‖down_c‖² · ((1 − α) ‖a_c‖₂² + α ‖a_c‖_∞²)

α is 0.9, as in its released scripts (`reduce_ratio`). Energies are ranked over all experts of a layer together, so they are given as shares of their
layer. The score of an expert is the sum over its channels; a unit that is no expert gets the highest of all, since CAMERA leaves those as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import matrix_shape
from bitwright.objectives import Routed, Tap, Tapped, Use, watched_routers
from bitwright.predictors.keeping import kept
from bitwright.predictors.passes import forward
from bitwright.predictors.subject import Subject
from bitwright.spaces import Unit, expert_of

ALPHA = 0.9
_DOWN = "ffn_down_exps"


def micro_expert_energies(subject: Subject, alpha: float = ALPHA) -> NDArray[np.float64]:
    """The share of each channel in the energy of its layer `(n_units, n_channels)`, zero for a unit that is no expert.

    Cost: a forward pass over the tokens, kept in the subject's store.
    """
    return kept(subject, f"micro-experts/{alpha:g}", lambda: _measured(subject, alpha))


def camera_scores(subject: Subject) -> NDArray[np.float64]:
    """The energy of each expert as a share of its layer's `(n_units,)`, summed over its micro-experts; the highest for what is none."""
    shares = micro_expert_energies(subject).sum(axis=1)
    experts = np.array([unit.expert >= 0 for unit in subject.space.units])
    scores: NDArray[np.float64] = np.where(experts, shares, shares.max(initial=0.0))
    return scores


def _measured(subject: Subject, alpha: float) -> NDArray[np.float64]:
    units = subject.space.units
    downs = {tensor.name: u for u, unit in enumerate(units) if unit.expert >= 0 for tensor in unit.tensors if _DOWN in tensor.name}
    energies = np.zeros((len(units), max((_n_channels(units, u) for u in downs.values()), default=0)))
    values = _Values({name: expert_of(name) for name in downs})
    with watched_routers(subject.model, values.routed), Tapped(subject.model, values):
        for _ in forward(subject, "Watching the channels of every expert"):
            pass
    for name, u in downs.items():
        if name in values.squares:
            size = (1 - alpha) * values.squares[name] + alpha * values.largest[name] ** 2
            tensor = next(tensor for tensor in units[u].tensors if tensor.name == name)
            columns = (subject.model.source.read(tensor).astype(np.float64) ** 2).sum(axis=0)
            energies[u, : len(columns)] = columns * size.cpu().numpy()
    layers = np.array([unit.layer for unit in units])
    for layer in {units[u].layer for u in downs.values()}:
        total = energies[layers == layer].sum()
        energies[layers == layer] /= total if total > 0 else 1.0
    return energies


def _n_channels(units: Sequence[Unit], u: int) -> int:
    return max(matrix_shape(tensor)[1] for tensor in units[u].tensors if _DOWN in tensor.name)


@dataclass(eq=False)
class _Values(Tap):
    """Sums over tokens of the channels that go into the down matrices `experts`, by their layer and index."""

    experts: dict[str, tuple[int, int]]
    squares: dict[str, Torch] = field(default_factory=dict)
    largest: dict[str, Torch] = field(default_factory=dict)
    _routed: dict[int, Routed] = field(default_factory=dict)

    def routed(self, routed: Routed) -> None:
        """Remember what a router chose: its experts run next."""
        self._routed[routed.layer] = routed

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        """See `Tap.linear`; the tokens of an expert come by their place among a token's experts, then in order."""
        for use in uses:
            if use.tensor in self.experts:
                layer, expert = self.experts[use.tensor]
                routed = self._routed[layer]
                places = expert == routed.chosen.reshape(-1, routed.chosen.shape[-1]).T
                weights = routed.weights.reshape(-1, routed.chosen.shape[-1]).T[places]
                values = x.reshape(-1, x.shape[-1]).double() * weights[:, None]
                self._add(use.tensor, values.square().sum(dim=0), values.abs().amax(dim=0))

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Nothing is looked up in an expert."""

    def _add(self, name: str, squares: Torch, largest: Torch) -> None:
        self.squares[name] = self.squares[name] + squares if name in self.squares else squares
        self.largest[name] = torch.maximum(self.largest[name], largest) if name in self.largest else largest
