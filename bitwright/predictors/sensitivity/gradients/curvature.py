"""Hessian trace times squared weight error: HAWQ.

    ½ Tr(H_u) / n_u · ‖ΔW_u‖²        n_u weights of the unit

Source: HAWQ-V2 (Dong et al., NeurIPS 2020) and HAWQ-V3 (Yao et al., ICML 2021), which leave out the ½: with it, this is the second-order term of the
loss for a change without preferred direction. The trace is estimated after Hutchinson (1990): E vᵀHv = Tr H for v of independent ±1, and

    Tr(H_u) = E v_uᵀ (Hv)_u

so one probe v over all weights serves all units at once; the off-diagonal blocks of H average out. Hv is the gradient of ⟨∇loss, v⟩ (Pearlmutter,
1994).

The loss of HAWQ is the training loss, `TextLabels`. For the divergence from the original, `FromOriginal`, the Hessian is the Fisher information,
which has no negative curvature; `gradient.py` multiplies it by the ΔW of a format instead of taking its trace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitwright.errors import ModelError
from bitwright.objectives import is_mixture, standard_error
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.gradients.losses import Batch, Loss, Slope
from bitwright.predictors.sensitivity.gradients.sweep import SEQUENCES_AT_ONCE
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Space


@dataclass(frozen=True, eq=False)
class Trace:
    """Estimated trace of each unit's block of the Hessian of the loss per token, and its standard error over batches: both `(n_units,)`, in nats per
    token and unit of squared weight; the error is infinite for a single batch.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]


def hessian_trace(subject: Subject, loss: Loss, *, n_probes: int) -> Trace:
    """Estimate the trace of every unit from `n_probes` vectors of random signs for each batch of the text; every finished batch is cached.

    One forward and one backward pass, and for each probe one more backward pass through both. Memory: twice the weights of the units, and about three
    times the activations of a batch.

    Raises:
        ModelError: a derivative is not finite.
    """
    batches = [Batch(ids, i, i * SEQUENCES_AT_ONCE) for i, ids in enumerate(subject.tokens.batches(SEQUENCES_AT_ONCE))]
    estimate = _Estimate(subject, loss, cache(lambda: loss.slope(subject)), n_probes)
    found = np.zeros((len(batches), len(subject.space.units)))
    with subject.progress.stage("Estimating the trace of the Hessian", subject.tokens.n_tokens) as advance:
        for batch in batches:
            name = f"trace/{loss.name}/{n_probes}/{batch.index:05d}"
            found[batch.index] = cached(subject, name, partial(_of_batch, estimate, batch))
            advance(batch.ids.size)
    if not np.isfinite(found).all():
        raise ModelError("A model's second derivatives must be finite; this model gives infinite or undefined ones: choose another --sensitivity.")
    shares = np.array([batch.ids.size for batch in batches]) / subject.tokens.n_tokens  # (n_batches,)
    return Trace(shares @ found, np.array([standard_error(column) for column in found.T]))


def trace_table(trace: Trace, space: Space, *, absolute_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ½ Tr(H) / n · ‖ΔW‖² `(n_units, n_formats)` in nats per token, from ‖ΔW‖² `(n_units, n_formats)`.

    A negative estimate counts as zero: compare `Trace.values` with `Trace.errors`, and use more probes where they are of similar size.
    """
    curvature = np.maximum(trace.values, 0) / np.array([unit.n_weights for unit in space.units])
    table: NDArray[np.float64] = curvature[:, None] * absolute_error / 2
    return table


@dataclass(frozen=True, eq=False)
class _Estimate:
    """Arguments of an estimate; `slope` is computed at its first call."""

    subject: Subject
    loss: Loss
    slope: Callable[[], Slope]
    n_probes: int


def _of_batch(estimate: _Estimate, batch: Batch) -> NDArray[np.float64]:
    """Return the estimates per token `(n_units,)` from one batch."""
    subject = estimate.subject
    generator = torch.Generator().manual_seed(subject.seed * 1_000_003 + batch.index)
    weights = _weights(subject)
    found = np.zeros(len(subject.space.units))
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # other kernels cannot be differentiated twice
        gradients = _gradients(estimate, weights, batch)
        for _ in range(estimate.n_probes):
            probe = {name: _signs(weight, generator) for name, weight in weights.items()}
            curved = torch.autograd.grad(
                list(gradients.values()), list(weights.values()), [probe[name] for name in gradients], retain_graph=True, allow_unused=True
            )
            products = {name: probe[name] * hv for name, hv in zip(weights, curved, strict=True) if hv is not None}
            found += _by_unit(subject, products)
    return found / (estimate.n_probes * batch.ids.size)


def _weights(subject: Subject) -> dict[str, Torch]:
    """Return the parameters that hold units as leaves of a graph of their own; they share the model's memory."""
    names = {piece.parameter for unit in subject.space.units for tensor in unit.tensors for piece in subject.model.pieces[tensor.name]}
    return {name: subject.model.module.get_parameter(name).detach().requires_grad_() for name in sorted(names)}


def _gradients(estimate: _Estimate, weights: dict[str, Torch], batch: Batch) -> dict[str, Torch]:
    """Return the gradients of the loss summed over the batch, with a graph to differentiate them again; parameters without influence are left out."""
    model, positions, slope = estimate.subject.model, estimate.loss.positions, estimate.slope()
    if is_mixture(model):
        model.module.set_experts_implementation("eager")
    ids = torch.from_numpy(batch.ids).to(model.device)
    logits = functional_call(model.module, weights, (ids,), {"use_cache": False}).logits.float()
    p = logits[:, positions].softmax(dim=-1)
    at_logits = slope(logits.detach(), batch)
    at_logits[:, positions] += p - p.detach()  # zero, but differentiable: see Loss
    found = torch.autograd.grad(logits, list(weights.values()), at_logits, create_graph=True, allow_unused=True)
    return {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}


def _signs(weight: Torch, generator: torch.Generator) -> Torch:
    return torch.randint(0, 2, weight.shape, generator=generator).mul_(2).sub_(1).to(weight)


def _by_unit(subject: Subject, values: dict[str, Torch]) -> NDArray[np.float64]:
    """Return the sum over each unit's weights `(n_units,)` of `values`, given by parameter."""
    found = np.zeros(len(subject.space.units))
    for u, unit in enumerate(subject.space.units):
        for piece in (piece for tensor in unit.tensors for piece in subject.model.pieces[tensor.name]):
            if piece.parameter in values:
                found[u] += float(piece.cut(values[piece.parameter]).sum(dtype=torch.float64))
    return found
