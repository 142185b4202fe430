"""Importance scores from the similarity of a decoder block's input and output: a block that changes the hidden states little needs little precision.

With x the hidden state of a token before a block and y the one after it:
    LIM               −E cos(x, y)            Layer Input Modification: Dumitru et al., "Layer-Wise Quantization" (2406.17415), section 3.1
    block influence   1 − E cos(x, y)         Men et al., "ShortGPT" (2403.03853); the score of UniQL
    angular           E arccos(cos(x, y))/π   Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers" (2403.17887), of one block

The influence of a part of a block is the same over that part: of attention 1 − E cos(x, x + a), where a is what its output projection adds, and of
the feed-forward part 1 − E cos(x + a, y).

LIM and block influence give the same order of units. Both are means over all tokens; the angular distance is a mean over the last token of each
sequence, as in its paper; UniQL takes block influence at the last token too. y is the output of the block, before any final norm.

The angular distance of n blocks, from x before the first to y after the last, is that of Gromov et al. too: they take the n blocks with the least.

Cost: one forward pass over the tokens for all three, and one for the distances of several blocks.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives import Tap, Tapped, Use, decoder_blocks
from bitwright.predictors.sensitivity.block_hooks import Call, hook_blocks, run_subject
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.ranked_scores import layer_scores
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Space, expert_of, role_of


def block_cosines(subject: Subject) -> NDArray[np.float64]:
    """Return cos(x, y) of every block and token `(n_blocks, n_sequences, length)`; 0 where a vector is zero."""
    return cached(subject, "block cosines", lambda: _measured(subject))


def span_distances(subject: Subject) -> NDArray[np.float64]:
    """Return the angular distance between the hidden states before block i and before block j at the last token `(n_blocks + 1, n_blocks + 1)`."""
    return cached(subject, "angular distances", lambda: distances_between(_last_states(subject)))


def distances_between(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean angular distance `(n_places, n_places)` of the hidden states `(n_places, n_sequences, width)` at each two places, 0 to 1."""
    norms = np.linalg.norm(states, axis=-1, keepdims=True)
    unit = states / np.maximum(norms, np.finfo(np.float64).tiny)
    cosines = np.einsum("isw,jsw->ijs", unit, unit).clip(-1, 1)
    found: NDArray[np.float64] = np.arccos(cosines).mean(axis=2) / np.pi
    return found


def part_influences(subject: Subject) -> NDArray[np.float64]:
    """Return the influence of each block's attention, of its feed-forward part and of the whole block `(n_blocks, 3)`, 0 to 2; of attention that ends
    in no matrix `attn_output`, 0, and of the other part then that of the block.
    """
    return cached(subject, "influences of parts", lambda: _influences(subject))


def lim_scores(cosines: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Return LIM for each unit `(n_units,)`, −1 to 1."""
    return layer_scores(space, -cosines.mean(axis=(1, 2)))


def block_influence_scores(cosines: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Return the block influence for each unit `(n_units,)`, 0 to 2; 0 where a block does not change the direction of the hidden states."""
    return layer_scores(space, 1 - cosines.mean(axis=(1, 2)))


def angular_scores(cosines: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Return the angular distance for each unit `(n_units,)`, 0 to 1."""
    return layer_scores(space, np.arccos(cosines[:, :, -1]).mean(axis=1) / np.pi)


def _last_states(subject: Subject) -> NDArray[np.float64]:
    """Return the hidden states of each sequence's last token before every block and behind the last one `(n_blocks + 1, n_sequences, width)`."""
    found: list[list[NDArray[np.float64]]] = [[] for _ in range(len(decoder_blocks(subject.model)) + 1)]

    def record(call: Call) -> None:
        found[call.index].append(call.x[:, -1].double().cpu().numpy())
        if call.index == len(found) - 2:
            found[-1].append(call.y[:, -1].double().cpu().numpy())

    with hook_blocks(subject.model, record):
        run_subject(subject, "Comparing the inputs of blocks")
    return np.stack([np.concatenate(batches) for batches in found])


@dataclass(eq=False)
class _Attended(Tap):
    """Last outputs of attention, and sums over tokens of 1 − cos by block and part. `layers` are those of the output projections by name."""

    layers: dict[str, int]
    added: dict[int, Torch] = field(default_factory=dict)
    sums: dict[int, list[float]] = field(default_factory=dict)

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        """Keep what attention adds to the hidden states."""
        for use in uses:
            if use.tensor in self.layers:
                self.added[self.layers[use.tensor]] = y

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore look-ups: attention has none."""

    def block(self, call: Call) -> None:
        """Add the influences of a block and its parts."""
        added = self.added.pop(call.index, None)
        between = call.x if added is None else call.x + added.reshape(call.x.shape)
        found = [float((1 - _cosines(a, b)).sum()) for a, b in ((call.x, between), (between, call.y), (call.x, call.y))]
        self.sums[call.index] = [total + more for total, more in zip(self.sums.get(call.index, [0.0] * 3), found, strict=True)]


def _influences(subject: Subject) -> NDArray[np.float64]:
    tap = _Attended({tensor.name: expert_of(tensor.name)[0] for tensor in subject.model.tensors if role_of(tensor) == "attn_output"})
    with hook_blocks(subject.model, tap.block), Tapped(subject.model, tap):
        run_subject(subject, "Comparing inputs and outputs of parts")
    return np.array([tap.sums[i] for i in sorted(tap.sums)]) / subject.tokens.n_tokens


def _cosines(x: Torch, y: Torch) -> Torch:
    """Return cos(x, y) of every token, 0 where a vector is zero."""
    x, y = x.double(), y.double()
    norms = (x.norm(dim=-1) * y.norm(dim=-1)).clamp_min(torch.finfo(torch.float64).tiny)
    cosines: Torch = (x * y).sum(dim=-1) / norms
    return cosines.clamp(-1, 1)


def _measured(subject: Subject) -> NDArray[np.float64]:
    found: list[list[NDArray[np.float64]]] = [[] for _ in decoder_blocks(subject.model)]

    def record(call: Call) -> None:
        found[call.index].append(_cosines(call.x, call.y).cpu().numpy())

    with hook_blocks(subject.model, record):
        run_subject(subject, "Comparing inputs and outputs of blocks")
    return np.stack([np.concatenate(batches) for batches in found])
