"""Micro-experts: contribution of each feed-forward channel to the output of its layer (CAMERA, AAAI 2026).

A gated expert is a sum over its channels c, each a row of gate and up and a column of down, called a micro-expert by CAMERA. With a_c the activation
of the channel, weighted by the router, at each token routed to the expert (0 at all others):

    a_c = g(x) · act(x·gate_c) · (x·up_c)        energy E_c = ‖down_c‖² · ((1 − α) ‖a_c‖₂² + α ‖a_c‖_∞²)

α is 0.9, as in its released scripts (`reduce_ratio`). Energies are ranked over all experts of a layer together, so they are given as shares of their
layer. The score of a unit is the sum over its channels; a unit that is not an expert or part of one gets the highest score, since CAMERA does not
compress those. In a dense feed-forward block g(x) = 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model, matrix_shape
from bitwright.objectives import RouterCall, Tap, Tapped, Tokens, Use, hook_routers
from bitwright.predictors.sensitivity.block_hooks import run_text
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.progress import Progress
from bitwright.spaces import Tensor, expert_of, role_of

ALPHA = 0.9
_DOWN = "ffn_down"


def channel_energies(model: Model, tokens: Tokens, *, alpha: float = ALPHA, progress: Progress) -> dict[str, NDArray[np.float64]]:
    """Measure E_c of the channels `(n_channels,)` of every feed-forward block, by the name of its down matrix, in a model with one tensor per expert.

    Cost: one forward pass over the tokens.
    """
    downs = {tensor.name: tensor for tensor in model.tensors if tensor.name in model.pieces and role_of(tensor).startswith(_DOWN)}
    values = _Values({name: expert_of(name) for name in downs})
    with hook_routers(model, values.routed), Tapped(model, values):
        run_text(model, tokens, "Measuring feed-forward channels", progress=progress)
    return {name: _energies(model, tensor, values, alpha) for name, tensor in downs.items()}


def micro_expert_energies(subject: Subject, alpha: float = ALPHA) -> NDArray[np.float64]:
    """Return each channel's share of the energy of its layer `(n_units, n_channels)`, zero for a unit that is not an expert or part of one.

    Cost: one forward pass over the tokens, cached in the subject's store.
    """
    return cached(subject, f"micro-experts/{alpha:g}", lambda: _shares(subject, alpha))


def camera_scores(subject: Subject) -> NDArray[np.float64]:
    """Return each unit's share of the energy of its layer `(n_units,)`, summed over its micro-experts; the highest share for units without any."""
    shares = micro_expert_energies(subject).sum(axis=1)
    experts = np.array([unit.expert >= 0 for unit in subject.space.units])
    scores: NDArray[np.float64] = np.where(experts, shares, shares.max(initial=0.0))
    return scores


def _shares(subject: Subject, alpha: float) -> NDArray[np.float64]:
    units = subject.space.units
    of_matrix = channel_energies(subject.model, subject.tokens, alpha=alpha, progress=subject.progress)
    rows = [_of_unit(unit.tensors, of_matrix) if unit.expert >= 0 else np.zeros(0) for unit in units]
    energies = np.zeros((len(units), max((len(row) for row in rows), default=0)))
    for u, row in enumerate(rows):
        energies[u, : len(row)] = row
    layers = np.array([unit.layer for unit in units])
    for layer in np.unique(layers):
        total = energies[layers == layer].sum()
        energies[layers == layer] /= total if total > 0 else 1.0
    return energies


def _of_unit(tensors: tuple[Tensor, ...], of_matrix: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *(of_matrix[tensor.name] for tensor in tensors if tensor.name in of_matrix)])


def _energies(model: Model, down: Tensor, values: "_Values", alpha: float) -> NDArray[np.float64]:
    if down.name not in values.squares:  # an expert without tokens
        return np.zeros(matrix_shape(down)[1])
    size = (1 - alpha) * values.squares[down.name] + alpha * values.largest[down.name] ** 2
    columns = (model.source.read(down).astype(np.float64) ** 2).sum(axis=0)
    energies: NDArray[np.float64] = columns * size.cpu().numpy()
    return energies


@dataclass(eq=False)
class _Values(Tap):
    """Sums over tokens of the channels that enter the down matrices; `places` maps their names to layer and expert index, -1 for a dense block."""

    places: dict[str, tuple[int, int]]
    squares: dict[str, Torch] = field(default_factory=dict)
    largest: dict[str, Torch] = field(default_factory=dict)
    _routed: dict[int, RouterCall] = field(default_factory=dict)

    def routed(self, routed: RouterCall) -> None:
        """Remember the last selection of a router: its experts run next."""
        self._routed[routed.layer] = routed

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        """Add the squares and maxima of a projection's channel activations."""
        for use in uses:
            if use.tensor in self.places:
                values = x.reshape(-1, x.shape[-1]).double() * self._weights(*self.places[use.tensor])
                self._add(use.tensor, values.square().sum(dim=0), values.abs().amax(dim=0))

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore look-ups: feed-forward blocks have none."""

    def _weights(self, layer: int, expert: int) -> Torch:
        """Return the router's weights of an expert's tokens `(n_tokens, 1)`."""
        return torch.ones(1, 1) if expert < 0 else self._routed[layer].weights_of(expert)[:, None]

    def _add(self, name: str, squares: Torch, largest: Torch) -> None:
        self.squares[name] = self.squares[name] + squares if name in self.squares else squares
        self.largest[name] = torch.maximum(self.largest[name], largest) if name in self.largest else largest
