"""Expected divergence of every unit in every format from one sweep of forward and backward passes.

With labels drawn from the model's own output distribution, the expected outer product of the gradient g of the log-likelihood is the Fisher
information F, and F is the Hessian of the divergence at the original weights (Amari, 1998; Martens, 2020, eq. 5). So for any change ΔW

    KL(W ‖ W + ΔW) ≈ ½ ΔWᵀ F ΔW = ½ E⟨g, ΔW⟩²

and the gradient of one sequence prices every format of every unit at once, with the very ΔW that the codec makes. Labels are drawn
independently at each position, so the gradients of a sequence's tokens are uncorrelated and the square of their sum needs no cross terms.

The products ⟨g, ΔW⟩ are kept one by one: products of two units say how their errors add up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Levels, Model
from bitwright.errors import ModelError
from bitwright.objectives import Store, Tap, Tapped, Tokens, Use, draw, is_mixture
from bitwright.progress import Progress
from bitwright.spaces import Space

_SEQUENCES_AT_ONCE = 4
_CHUNK_BYTES = 1 << 24  # small enough to stay in cache and to be reused by the allocator


@dataclass(frozen=True, eq=False)
class GradientProducts:
    """⟨g, ΔW⟩ of every sequence, unit and format: `values` `(n_sequences, n_units, n_formats)` float64, nats over a whole sequence; 0 where a
    pair is not offered. `n_tokens` is the length of a sequence.
    """

    values: NDArray[np.float64]
    n_tokens: int

    def table(self) -> NDArray[np.float64]:
        """½ E⟨g, ΔW⟩² for each token `(n_units, n_formats)`, in nats per token."""
        expected: NDArray[np.float64] = (self.values**2).mean(axis=0) / (2 * self.n_tokens)
        return expected


def measure_products(model: Model, levels: Levels, *, space: Space, tokens: Tokens, seed: int, store: Store, progress: Progress) -> GradientProducts:
    """One sweep over `tokens`; every finished batch is kept in `store` and not repeated.

    Peak memory beside the model: the activations of a batch and 16 MiB. Labels are drawn with a generator seeded by `seed` and the batch.

    Raises:
        ModelError: a gradient product is not finite.
    """
    step = 1 if is_mixture(model) else _SEQUENCES_AT_ONCE
    with progress.stage("Pricing every format by its gradient", tokens.n_tokens) as advance:
        for i, batch in enumerate(tokens.batches(step)):
            name = f"products/{i:05d}"
            if not store.has_array(name):
                generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
                store.put_array(name, _sweep(model, levels, space=space, batch=batch, generator=generator))
            advance(batch.size)
    n_batches = -(-len(tokens.ids) // step)
    values = np.concatenate([store.array(f"products/{i:05d}") for i in range(n_batches)])
    if not np.isfinite(values).all():
        raise ModelError("A model's gradients must be finite; this model gives infinite or undefined ones: choose --sensitivity importance.")
    return GradientProducts(values, tokens.ids.shape[1])


def _sweep(model: Model, levels: Levels, *, space: Space, batch: NDArray[np.int64], generator: torch.Generator) -> NDArray[np.float64]:
    """Products `(n_sequences, n_units, n_formats)` of one batch."""
    tap = _Products(model, levels, space=space, n_sequences=len(batch))
    with torch.enable_grad():
        with Tapped(model, tap):
            logits = model.module(torch.from_numpy(batch).to(model.device), use_cache=False).logits.float()
        slope = logits.detach().softmax(dim=-1)
        labels = draw(slope.view(-1, slope.shape[-1]), generator).to(slope.device)
        # ∂ log p(label) / ∂ logits = 1[label] − p, in place of p: logits are the largest tensor of the sweep
        slope.neg_().view(-1, slope.shape[-1]).scatter_add_(1, labels, torch.ones_like(labels, dtype=slope.dtype))
        logits.backward(slope)
    return tap.values


class _Products(Tap):
    """Turns the gradient at the output of every use into products with every ΔW, a chunk of rows at a time.

    The gradient of W for sequence s is G_s = Σ_t ∂y_t x_tᵀ, so ⟨G_s, ΔW⟩ needs no gradient of any parameter.
    """

    def __init__(self, model: Model, levels: Levels, *, space: Space, n_sequences: int) -> None:
        self.values = np.zeros((n_sequences, *space.offered.shape))
        self._model, self._levels, self._space = model, levels, space
        self._tensors = {tensor.name: (u, tensor) for u, unit in enumerate(space.units) for tensor in unit.tensors}
        self._parameters = {name: model.module.get_parameter(pieces[0].parameter) for name, pieces in model.pieces.items()}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        decided = [use for use in uses if use.tensor in self._tensors]  # a router, for one, is not
        if decided and y.requires_grad:
            y.register_hook(lambda gradient: self._price_linear(decided, x.detach(), gradient))  # type: ignore[no-untyped-call]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        if y.is_leaf:
            y.requires_grad_(True)
        decided = [use for use in uses if use.tensor in self._tensors]
        y.register_hook(lambda gradient: self._price_embedding(decided, ids, gradient))  # type: ignore[no-untyped-call]

    def _price_linear(self, uses: list[Use], x: Torch, gradient: Torch) -> None:
        n = len(self.values)
        with torch.no_grad():
            inputs = x.reshape(n, -1, x.shape[-1])
            outputs = gradient.reshape(n, -1, gradient.shape[-1])
            for use in uses:
                for start, stop in self._chunks(use, x.shape[-1]):
                    order = torch.from_numpy(use.order[start:stop]).to(x.device)
                    rows = torch.bmm(outputs[:, :, order].transpose(1, 2), inputs)  # (n, rows, columns)
                    self._add(use, rows.reshape(n, -1), start=start, stop=stop)

    def _price_embedding(self, uses: list[Use], ids: Torch, gradient: Torch) -> None:
        with torch.no_grad():
            for use in uses:
                row_of = np.argsort(use.order)  # torch row -> engine row
                wanted, place = np.unique(row_of[ids.cpu().numpy()], return_inverse=True)
                u, tensor = self._tensors[use.tensor]
                original = self._original(use, use.order[wanted])
                for f in np.flatnonzero(self._space.offered[u]):
                    change = torch.from_numpy(self._levels.some_rows(tensor, self._space.formats[f], wanted)).to(original) - original
                    looked_up = change[torch.from_numpy(place.reshape(ids.shape)).to(original.device)]
                    self.values[:, u, f] += (gradient * looked_up).flatten(1).sum(dim=1).double().cpu().numpy()

    def _add(self, use: Use, rows: Torch, *, start: int, stop: int) -> None:
        """Add the products of the gradients `rows` `(n, weights of the chunk)` with every ΔW of the chunk."""
        u, tensor = self._tensors[use.tensor]
        offered = np.flatnonzero(self._space.offered[u])
        original = self._original(use, use.order[start:stop])
        for f in offered:
            weights = self._levels.rows(tensor, self._space.formats[f], start=use.first_row + start, stop=use.first_row + stop)
            change = torch.from_numpy(weights).to(original) - original
            self.values[:, u, f] += (rows @ change.reshape(-1)).double().cpu().numpy()

    def _original(self, use: Use, order: NDArray[np.int64]) -> Torch:
        parameter = self._parameters[use.tensor].detach()
        matrix = parameter[use.group] if parameter.dim() == 3 else parameter
        return matrix[torch.from_numpy(order).to(parameter.device)]

    def _chunks(self, use: Use, n_columns: int) -> Iterator[tuple[int, int]]:
        step = max(1, _CHUNK_BYTES // (4 * n_columns * (len(self.values) + 2)))
        for start in range(0, len(use.order), step):
            yield start, min(start + step, len(use.order))
