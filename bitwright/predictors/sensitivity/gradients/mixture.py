"""Divergence of a model whose weights are mixtures of their formats, and its slope by the share of each format.

Each tensor has the weights W(s) = Σ_f s_f W_f, the shares s of its unit's formats adding up to 1, so the divergence is a differentiable function of
all shares at once. With G the gradient by the weights at the mixture, ∂D/∂s_f = ⟨G, W_f⟩; the sweep gives ⟨G, W_f − W(s)⟩, which is the slope less
its mean under the shares, all that a softmax needs. Formats are expanded one at a time and added, so memory holds the model twice, however many are
mixed.

Rounded inputs are no part of a mixture: formats that round them are mixed by their weights.
"""

import hashlib
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Floats, Job, PackedTensors, Weights, applied, matrix_shape
from bitwright.errors import ModelError
from bitwright.objectives import PendingReference, Reference
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.gradients.losses import Batch
from bitwright.predictors.sensitivity.gradients.products import InnerProduct
from bitwright.predictors.sensitivity.gradients.sweep import Pricing, batch_size, pack, priced_batch
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.progress import ignore
from bitwright.spaces import Format, Tensor

Table = NDArray[np.float64]
_MIXED = "mixture"  # the name of no format
_LEAST = 1e-3  # share below which a format is left out of a mixture


@dataclass(frozen=True)
class MixedWeights:
    """Weights of a tensor as the sum of its formats by their shares, expanded one after another when they are asked for."""

    levels: PackedTensors
    tensor: Tensor
    shares: tuple[tuple[Format, float], ...]

    def __call__(self) -> Floats:
        """Return the weights `(n_rows, n_columns)`."""
        total = np.zeros(matrix_shape(self.tensor), dtype=np.float32)
        for form, share in self.shares:
            expanded = self.levels.source.read(self.tensor) if form.name == self.tensor.stored else self.levels.weights(self.tensor, form)
            total += np.float32(share) * expanded.reshape(total.shape)
        return total


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Divergence of the mixtures of a subject's formats from the predictions of `reference`, on sequences of the subject's tokens."""

    subject: Subject
    reference: Reference | PendingReference

    def __call__(self, shares: Table, sequences: NDArray[np.int64]) -> tuple[float, Table]:
        """Return the divergence in nats/token on these `sequences` `(n,)`, by index, with the `shares` `(n_units, n_formats)`, and its slope by each
        share less their mean `(n_units, n_formats)`, 0 where a pair is not offered. The subject's store keeps both.

        Cost: one forward and one backward pass over the sequences.

        Raises:
            ModelError: the divergence is not finite.
        """
        kept = np.where(self.subject.space.offered & (shares >= _LEAST), shares, 0.0)
        kept /= kept.sum(axis=1, keepdims=True)
        digest = hashlib.sha256(kept.tobytes() + sequences.astype(np.int64).tobytes()).hexdigest()[:16]
        offered = self.subject.space.offered
        found = cached(self.subject, f"mixture/{digest}", lambda: self._measured(kept, sequences))
        slopes = np.zeros(offered.shape)
        slopes[offered] = found[1:]
        return float(found[0]), slopes

    def _measured(self, shares: Table, sequences: NDArray[np.int64]) -> Table:
        """Return the divergence and the slopes of the offered pairs `(1 + n_offered,)`."""
        subject, offered = self.subject, self.subject.space.offered
        asked = _Asked(self.reference.computed(), sequences)  # before the weights are mixed
        pack(subject)
        at, ids = dict.fromkeys((tensor.name for unit in subject.space.units for tensor in unit.tensors), _MIXED), subject.tokens.ids[sequences]
        step = batch_size(subject.model)
        batches = [Batch(ids[start : start + step], start, start) for start in range(0, len(ids), step)]
        with applied(subject.model, self._weights(shares)) as originals:
            taps = [Pricing(subject, (InnerProduct(),), at=at, originals=originals, n_sequences=len(batch.ids)) for batch in batches]
            jobs = [Job(partial(priced_batch, subject, tap, slope=asked.slope, batch=batch), 0) for tap, batch in zip(taps, batches, strict=True)]
            total = sum(values[0, :, 0, :, :-1].sum(axis=0) for values in subject.model.each(jobs, ignore))
        if not np.isfinite(asked.nats).all():
            raise ModelError("A mixture's divergence must be finite; that of this model is infinite or undefined: choose --method auto.")
        return np.concatenate([[sum(asked.nats)], total[offered]]) / ids.size

    def _weights(self, shares: Table) -> Weights:
        """Return the mixed weights of every tensor."""
        space, levels = self.subject.space, self.subject.levels
        return {
            tensor.name: MixedWeights(levels, tensor, tuple((space.formats[f], float(of_unit[f])) for f in np.flatnonzero(of_unit)))
            for unit, of_unit in zip(space.units, shares, strict=True)
            for tensor in unit.tensors
        }


@dataclass(frozen=True, eq=False)
class _Asked:
    """Slope of the divergence on some `sequences` `(n,)` of a reference, which adds up the `nats` of every batch that it is asked for."""

    reference: Reference
    sequences: NDArray[np.int64]
    nats: list[float] = field(default_factory=list)

    def slope(self, logits: Torch, batch: Batch) -> Torch:
        """Return the gradient of KL(original ‖ mixture) by the logits, summed over tokens."""
        read = [self.reference.sequences(int(i), 1, logits.device) for i in self.sequences[batch.first : batch.first + len(batch.ids)]]
        original, mixed = torch.cat(read), logits.log_softmax(dim=-1)
        self.nats.append(float((original.exp() * (original - mixed)).sum(dtype=torch.float64)))
        return mixed.exp_().sub_(original.exp_())
