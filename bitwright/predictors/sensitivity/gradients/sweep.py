"""One sweep of forward and backward passes that prices every format of every unit, at the original weights or at any choice.

    Sweep(SampledLabels())                                    the Fisher information of the original (gradient.py)
    Sweep(FromOriginal(), at=point(space, choice))            what every format would change in the divergence of that choice, to first order
    Sweep(TextLabels(), product=SquaredOutputChange())        ModelOpt's score

The gradient is taken at an operating point: the original, or the original with some tensors in formats of their own. ΔW is counted from that point:
what it takes to go from the point to each format. What it takes to go back to the original is kept beside it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import applied, planned_weights
from bitwright.errors import ModelError
from bitwright.objectives import Tap, Tapped, Use, is_mixture
from bitwright.predictors.sensitivity.caching import name_for
from bitwright.predictors.sensitivity.gradients.losses import Batch, Loss, Slope
from bitwright.predictors.sensitivity.gradients.products import InnerProduct, Product
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Choice, Format, Space

SEQUENCES_AT_ONCE = 4
_CHUNK_BYTES = 1 << 24  # small enough to stay in cache and to be reused by the allocator

#: tensor name -> format, of the tensors that differ from the original; `ORIGINAL` is the one where none does
Point = Mapping[str, Format]
ORIGINAL: Point = {}


def point(space: Space, choice: Choice) -> Point:
    """The operating point where every unit of `space` is as `choice` `(n_units,)` says."""
    by_name = {form.name: form for form in space.formats}
    return {tensor: by_name[name] for tensor, name in space.names(choice).items()}


@dataclass(frozen=True)
class Sweep:
    """Which loss's gradient, what is made of it and a change of weights, and at which weights."""

    loss: Loss
    product: Product = field(default_factory=InnerProduct)
    at: Point = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Products:
    """Products of gradients and changes of weights over whole sequences: `values` `(n_sequences, n_units, n_formats)` of the change from the
    operating point to each format, 0 where a pair is not offered, and `restored` `(n_sequences, n_units)` of the change back to the original, 0
    where the operating point is the original. `n_tokens` is the length of a sequence.
    """

    values: NDArray[np.float64]
    restored: NDArray[np.float64]
    n_tokens: int

    def only(self, sequences: NDArray[np.int64]) -> "Products":
        """Those of some sequences."""
        return Products(self.values[sequences], self.restored[sequences], self.n_tokens)

    def per_token(self) -> NDArray[np.float64]:
        """Mean for each token `(n_units, n_formats)`: of inner products the expected change of the loss to first order, in nats per token."""
        mean: NDArray[np.float64] = self.values.mean(axis=0) / self.n_tokens
        return mean

    def restored_per_token(self) -> NDArray[np.float64]:
        """The same of going back to the original `(n_units,)`."""
        mean: NDArray[np.float64] = self.restored.mean(axis=0) / self.n_tokens
        return mean


def measure_products(subject: Subject, sweep: Sweep) -> Products:
    """One sweep over the subject's tokens; see `measure_together`."""
    return measure_together(subject, sweep, (sweep.product,))[0]


def measure_together(subject: Subject, sweep: Sweep, products: tuple[Product, ...]) -> tuple[Products, ...]:
    """One sweep over the subject's tokens for several `products` in place of the sweep's own; every finished batch is kept in its store and not
    repeated.

    Peak memory beside the model: the activations of a batch, 16 MiB, and a copy of the tensors that the operating point changes.

    Raises:
        ModelError: a product is not finite.
    """
    step, tokens, store = 1 if is_mixture(subject.model) else SEQUENCES_AT_ONCE, subject.tokens, subject.store
    names = [name_for(subject, f"products/{sweep.loss.name}/{product.name}/{_digest(sweep.at)}") for product in products]
    batches = [Batch(ids, i, i * step) for i, ids in enumerate(tokens.batches(step))]
    missing = [batch for batch in batches if not all(store.has_array(f"{name}/{batch.index:05d}") for name in names)]
    with subject.progress.stage("Pricing every format by its gradient", tokens.n_tokens) as advance:
        advance(tokens.n_tokens - sum(batch.ids.size for batch in missing))
        for batch, values in _swept(subject, sweep, products, batches=missing):
            for name, of_product in zip(names, values, strict=True):
                store.put_array(f"{name}/{batch.index:05d}", of_product)
            advance(batch.ids.size)
    found = [np.concatenate([store.array(f"{name}/{batch.index:05d}") for batch in batches]) for name in names]
    if not all(np.isfinite(values).all() for values in found):
        raise ModelError("A model's gradients must be finite; this model gives infinite or undefined ones: choose --sensitivity importance.")
    return tuple(Products(values[..., :-1], values[..., -1], tokens.ids.shape[1]) for values in found)


def _digest(at: Point) -> str:
    changed = sorted((tensor, form.name) for tensor, form in at.items())
    return hashlib.sha256(repr(changed).encode()).hexdigest()[:12] if changed else "original"


def _swept(subject: Subject, sweep: Sweep, products: tuple[Product, ...], *, batches: list[Batch]) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
    """Products `(n_products, n_sequences, n_units, n_formats + 1)` of each of `batches`, the change back to the original last."""
    if not batches:
        return
    slope, model = sweep.loss.slope(subject), subject.model
    _pack(subject)
    with applied(model, planned_weights(model, subject.levels, formats=sweep.at)) as originals:
        for batch in batches:
            tap = _Pricing(subject, products, at=sweep.at, originals=originals, n_sequences=len(batch.ids))
            yield batch, _priced(subject, tap, slope=slope, batch=batch)


def _pack(subject: Subject) -> None:
    """Every offered pair, while the model has its original weights: a source may read them from there."""
    for u, f in np.argwhere(subject.space.offered):
        for tensor in subject.space.units[u].tensors:
            if subject.space.formats[f].name != tensor.stored:
                subject.levels.packed(tensor, subject.space.formats[f])


def _priced(subject: Subject, tap: "_Pricing", *, slope: Slope, batch: Batch) -> NDArray[np.float64]:
    model = subject.model
    with torch.enable_grad():
        with Tapped(model, tap):
            logits = model.module(torch.from_numpy(batch.ids).to(model.device), use_cache=False).logits.float()
        logits.backward(slope(logits.detach(), batch))
    return tap.values


class _Pricing(Tap):
    """Turns the gradient at the output of every use into products with every ΔW, a chunk of rows at a time."""

    def __init__(self, subject: Subject, products: tuple[Product, ...], *, at: Point, originals: Mapping[str, Torch], n_sequences: int) -> None:
        model, self._space, self._levels, self._products = subject.model, subject.space, subject.levels, products
        n_units, n_formats = self._space.offered.shape
        self._n_sequences, self.values = n_sequences, np.zeros((len(products), n_sequences, n_units, n_formats + 1))
        self._tensors = {tensor.name: (u, tensor) for u, unit in enumerate(self._space.units) for tensor in unit.tensors}
        self._names, self._at = np.array([form.name for form in self._space.formats]), {tensor: form.name for tensor, form in at.items()}
        names = {name: pieces[0].parameter for name, pieces in model.pieces.items()}
        self._current = {name: model.module.get_parameter(parameter).detach() for name, parameter in names.items()}
        self._originals = {name: originals[names[name]] for name in at if names[name] in originals}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        decided = [use for use in uses if use.tensor in self._tensors]  # a router, for one, is not
        if decided and y.requires_grad:
            y.register_hook(lambda slopes: self._price_linear(decided, x.detach(), slopes))  # type: ignore[no-untyped-call]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        if y.is_leaf:
            y.requires_grad_(True)
        decided = [use for use in uses if use.tensor in self._tensors]
        y.register_hook(lambda slopes: self._price_embedding(decided, ids, slopes))  # type: ignore[no-untyped-call]

    def _price_linear(self, uses: list[Use], x: Torch, slopes: Torch) -> None:
        with torch.no_grad():
            inputs, outputs = (rows.reshape(self._n_sequences, -1, rows.shape[-1]) for rows in (x, slopes))
            for use in uses:
                for start, stop in self._chunks(use, inputs):
                    order = torch.from_numpy(use.order[start:stop]).to(x.device)
                    of_changes = [product.linear(inputs, outputs[:, :, order]) for product in self._products]
                    for f, change in self._changes(use, np.arange(start, stop)):
                        self._add(use, f, [of_change(change) for of_change in of_changes])

    def _price_embedding(self, uses: list[Use], ids: Torch, slopes: Torch) -> None:
        with torch.no_grad():
            for use in uses:
                row_of = np.argsort(use.order)  # torch row -> engine row
                wanted, place = np.unique(row_of[ids.cpu().numpy()], return_inverse=True)
                looked_up = torch.from_numpy(place.reshape(ids.shape)).to(ids.device)
                for f, change in self._changes(use, wanted):
                    self._add(use, f, [product.embedding(slopes, change[looked_up]) for product in self._products])

    def _changes(self, use: Use, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Torch]]:
        """Column of `values` and ΔW `(n_rows, n_columns)` of the rows `wanted` of a use, for every offered format and for going back; where nothing
        would change there is nothing to price.
        """
        u, tensor = self._tensors[use.tensor]
        current = _rows(self._current[use.tensor], use, wanted)
        stored = self._space.offered[u] & (self._names == tensor.stored)
        for f in np.flatnonzero(self._space.offered[u] & ~stored & (self._names != self._at.get(tensor.name, tensor.stored))):
            weights = self._levels.some_rows(tensor, self._space.formats[f], use.first_row + wanted)
            yield int(f), torch.from_numpy(weights).to(current) - current
        if use.tensor in self._originals:
            back = _rows(self._originals[use.tensor], use, wanted) - current
            yield from ((int(f), back) for f in (*np.flatnonzero(stored), -1))

    def _add(self, use: Use, column: int, products: list[Torch]) -> None:
        for values, of_sequences in zip(self.values, products, strict=True):
            values[:, self._tensors[use.tensor][0], column] += of_sequences.double().cpu().numpy()

    def _chunks(self, use: Use, inputs: Torch) -> Iterator[tuple[int, int]]:
        n, length, n_columns = inputs.shape
        step = max(1, _CHUNK_BYTES // (4 * (max(n_columns, length) * n + 2 * n_columns)))
        for start in range(0, len(use.order), step):
            yield start, min(start + step, len(use.order))


def _rows(parameter: Torch, use: Use, wanted: NDArray[np.int64]) -> Torch:
    """The rows `wanted` of a use, in the order of the engine."""
    matrix = parameter if use.expert < 0 else parameter[use.expert]
    if use.columns is not None:
        matrix = matrix[:, slice(*use.columns)]
    return matrix[torch.from_numpy(use.order[wanted]).to(parameter.device)]
