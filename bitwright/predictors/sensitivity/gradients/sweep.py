"""Gradient sweep: one forward and backward pass over the text that prices every format of every unit, at the original weights or at any choice.

    Sweep(SampledLabels())                                      the Fisher information at the original (gradient.py)
    Sweep(FromOriginal(), at=operating_point(space, choice))    first-order change of that choice's divergence by every format
    Sweep(TextLabels(), product=SquaredOutputChange())          ModelOpt's score

The gradient is taken at an operating point: the original weights, or those with some tensors quantized. ΔW is the change from that point to each
format; the change back to the original is priced too.

Formats are priced by the rows of a sample (`RowSample`), or by all rows. With y_r the product of a row r, and w_r the reciprocal of its chance of
being drawn, Σ w_r y_r over the drawn rows is an unbiased estimate of the product ⟨g, ΔW⟩ = Σ y_r, but its square is not one of ⟨g, ΔW⟩²: it is too
large by the variance of the estimate, which for few rows is most of it. Subtracting that variance leaves almost only noise, because ⟨g, ΔW⟩ is a sum
of many terms of either sign. Rounding errors of different rows are independent, however, so the cross terms of E⟨g, ΔW⟩² = Σ_r E y_r² + Σ_{r≠q} E y_r
y_q vanish in expectation, and Σ w_r y_r² over the drawn rows is an unbiased estimate of the first sum, with a square for each row in place of one for
all. The rows are dealt into groups at random, and the squares are those of Σ √w_r y_r over each group: few numbers to store, from which the change
between any two formats has a square, too. Measured ratios of both sums are in docs/predictors.md.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Job, Model, applied, indices, planned_weights
from bitwright.errors import ModelError
from bitwright.objectives import Reference, Tap, Tapped, Use, is_mixture
from bitwright.predictors.sensitivity.caching import cache_key
from bitwright.predictors.sensitivity.gradients.losses import Batch, FromOriginal, Loss, Slope
from bitwright.predictors.sensitivity.gradients.products import InnerProduct, Product
from bitwright.predictors.sensitivity.subject import Elsewhere, Subject, SubjectPart
from bitwright.progress import Advance, ignore
from bitwright.spaces import Choice, Format, Space

SEQUENCES_AT_ONCE = 4
_CHUNK_BYTES = 1 << 24  # small enough to stay in cache and to be reused by the allocator

#: tensor name -> format, for the tensors that differ from the original; `ORIGINAL` has none
OperatingPoint = Mapping[str, Format]
ORIGINAL: OperatingPoint = {}


def operating_point(space: Space, choice: Choice) -> OperatingPoint:
    """Return the operating point with the units of `space` in the formats of `choice` `(n_units,)`."""
    by_name = {form.name: form for form in space.formats}
    return {tensor: by_name[name] for tensor, name in space.names(choice).items()}


@dataclass(frozen=True)
class Sweep:
    """Loss, product of its gradient with weight changes, and operating point of a sweep."""

    loss: Loss
    product: Product = field(default_factory=InnerProduct)
    at: OperatingPoint = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Products:
    """Products of gradients and weight changes over whole sequences of `n_tokens` tokens.

    `values` `(n_sequences, n_units, n_formats)` are those of the change from the operating point to each format, 0 where a pair is not offered;
    `restored` `(n_sequences, n_units)` those of the change back to the original, 0 where the operating point is the original.

    Where they were estimated from a sample of rows, `groups` `(n_sequences, n_groups, n_units, n_formats)` are the sums of each group of rows, each
    row by the root of its weight.
    """

    values: NDArray[np.float64]
    restored: NDArray[np.float64]
    n_tokens: int
    groups: NDArray[np.float64] | None = None

    def only(self, sequences: NDArray[np.int64]) -> "Products":
        """Return the products of some sequences, by index."""
        groups = None if self.groups is None else self.groups[sequences]
        return Products(self.values[sequences], self.restored[sequences], self.n_tokens, groups)

    def squares(self) -> NDArray[np.float64]:
        """Return the squares `(n_sequences, n_units, n_formats)`, of a sample those of its groups summed."""
        squares: NDArray[np.float64] = self.values**2 if self.groups is None else (self.groups**2).sum(axis=1)
        return squares

    def less(self, choice: Choice) -> "Products":
        """Return the products of the changes from a choice `(n_units,)` to every format."""
        units = np.arange(len(choice))
        groups = None if self.groups is None else self.groups - self.groups[:, :, units, choice][..., None]
        return Products(self.values - self.values[:, units, choice][..., None], self.restored, self.n_tokens, groups)

    def sampling_errors(self) -> NDArray[np.float64]:
        """Return the standard error `(n_units, n_formats)` in nats per token that the sample of rows adds to ½ E⟨g, ΔW⟩²: √n_groups times the
        standard deviation between its groups; 0 where there is no sample.
        """
        if self.groups is None:
            return np.zeros(self.values.shape[1:])
        of_groups = (self.groups**2).mean(axis=0) / (2 * self.n_tokens)  # (n_groups, n_units, n_formats)
        errors: NDArray[np.float64] = np.sqrt(len(of_groups)) * of_groups.std(axis=0, ddof=1)
        return errors

    def per_token(self) -> NDArray[np.float64]:
        """Return the mean per token `(n_units, n_formats)`: for inner products the expected first-order change of the loss, in nats per token."""
        mean: NDArray[np.float64] = self.values.mean(axis=0) / self.n_tokens
        return mean

    def restored_per_token(self) -> NDArray[np.float64]:
        """Return the mean per token `(n_units,)` of the change back to the original."""
        mean: NDArray[np.float64] = self.restored.mean(axis=0) / self.n_tokens
        return mean


def measure_products(subject: Subject, sweep: Sweep) -> Products:
    """Run one sweep over the subject's tokens; see `measure_together`."""
    return measure_together(subject, sweep, (sweep.product,))[0]


def measure_together(subject: Subject, sweep: Sweep, products: tuple[Product, ...]) -> tuple[Products, ...]:
    """Run one sweep over the subject's tokens for several `products` in place of the sweep's own; every finished batch is cached in the subject's
    store.

    Peak memory besides the model: the activations of a batch, 16 MiB, and a copy of the tensors that the operating point changes.

    Raises:
        ModelError: a product is not finite.
    """
    step, tokens, store = batch_size(subject.model), subject.tokens, subject.store
    rows = subject.priced_rows
    names = [cache_key(subject, f"products/{sweep.loss.name}/{product.name}/{_digest(sweep.at)}{rows.key}") for product in products]
    batches = [Batch(ids, i, i * step) for i, ids in enumerate(tokens.batches(step))]
    missing = [batch for batch in batches if not all(store.has_array(f"{name}/{batch.index:05d}") for name in names)]
    swept = _swept if subject.elsewhere is None else partial(_swept_elsewhere, subject.elsewhere)
    with subject.progress.stage("Measuring sensitivities by gradient", tokens.n_tokens) as advance:
        advance(tokens.n_tokens - sum(batch.ids.size for batch in missing))
        for batch, values in swept(subject, sweep, products, batches=missing, advance=advance):
            for name, of_product in zip(names, values, strict=True):
                store.put_array(f"{name}/{batch.index:05d}", of_product)
    found = [np.concatenate([store.array(f"{name}/{batch.index:05d}") for batch in batches]) for name in names]
    require_finite(found)
    return tuple(_products(values, tokens.ids.shape[1]) for values in found)


def require_finite(found: Iterable[NDArray[np.float64]]) -> None:
    """Raise if sums of gradients are not finite.

    Raises:
        ModelError: some are not.
    """
    if not all(np.isfinite(values).all() for values in found):
        raise ModelError("A model's gradients must be finite; this model gives infinite or undefined ones: choose --sensitivity importance.")


def _products(values: NDArray[np.float64], n_tokens: int) -> Products:
    """Return the products of `values` `(n_sequences, n_sums, n_units, n_formats + 1)`: the whole sums first, then those of each group of a sample."""
    groups = values[:, 1:, :, :-1] if values.shape[1] > 1 else None
    return Products(values[:, 0, :, :-1], values[:, 0, :, -1], n_tokens, groups)


def _digest(at: OperatingPoint) -> str:
    changed = sorted((tensor, form.name) for tensor, form in at.items())
    return hashlib.sha256(repr(changed).encode()).hexdigest()[:12] if changed else "original"


def _swept(
    subject: Subject, sweep: Sweep, products: tuple[Product, ...], *, batches: list[Batch], advance: Advance
) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
    """Yield the products `(n_products, n_sequences, n_sums, n_units, n_formats + 1)` of each of `batches`, the change back to the original last."""
    if not batches:
        return
    slope, model = sweep.loss.slope(subject), subject.model
    pack(subject)
    with applied(model, planned_weights(model, subject.levels, formats=sweep.at)) as originals:
        names = {tensor: form.name for tensor, form in sweep.at.items()}
        taps = [Pricing(subject, products, at=names, originals=originals, n_sequences=len(batch.ids)) for batch in batches]
        jobs = [Job(partial(priced_batch, subject, tap, slope=slope, batch=batch), batch.ids.size) for tap, batch in zip(taps, batches, strict=True)]
        yield from zip(batches, model.each(jobs, advance), strict=True)


@dataclass(frozen=True, eq=False)
class SweptBatches(SubjectPart):
    """Products of some `batches` of a sweep; the divergence from the original is taken from the predictions that it is given."""

    sweep: Sweep
    products: tuple[Product, ...]
    batches: tuple[Batch, ...]

    @property
    def formats(self) -> OperatingPoint:
        """The tensors that the operating point changes."""
        return self.sweep.at

    @property
    def sequences(self) -> slice:
        """The sequences from the first batch to the last."""
        return slice(self.batches[0].first, self.batches[-1].first + len(self.batches[-1].ids))

    @property
    def n_tokens(self) -> int:
        """Tokens of all batches."""
        return sum(batch.ids.size for batch in self.batches)

    def do(self, subject: Subject, predictions: Callable[[], Reference]) -> list[NDArray[np.float64]]:
        """Return the products of each batch; see `_swept`."""
        sweep = replace(self.sweep, loss=FromOriginal(lambda _: predictions())) if isinstance(self.sweep.loss, FromOriginal) else self.sweep
        return [values for _, values in _swept(subject, sweep, self.products, batches=[*self.batches], advance=ignore)]


def _swept_elsewhere(
    elsewhere: Elsewhere, subject: Subject, sweep: Sweep, products: tuple[Product, ...], *, batches: list[Batch], advance: Advance
) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
    """Yield the same as `_swept`, computed by other processes, which get one batch at a time; as many as are fair where batches share what they begin
    with, the reading of a streamed model or the weights of an operating point.
    """
    portable = replace(sweep, loss=FromOriginal()) if isinstance(sweep.loss, FromOriginal) else sweep
    shares = bool(sweep.at) or subject.model.residence.is_streamed
    step = max(1, -(-len(batches) // elsewhere.n_workers)) if shares else 1
    parts = [SweptBatches(portable, products, tuple(batches[i : i + step])) for i in range(0, len(batches), step)]
    for part, found in zip(parts, elsewhere.each(subject, parts, advance), strict=True):
        yield from zip(part.batches, found, strict=True)


def batch_size(model: Model) -> int:
    """Return the number of sequences of a batch: one where experts are chosen, whose inputs are not told apart by sequence."""
    return 1 if is_mixture(model) else SEQUENCES_AT_ONCE


def pack(subject: Subject) -> None:
    """Pack the rows of every offered pair while the model has its original weights, since a source may read them from the model."""
    rows = subject.priced_rows
    for u, f in np.argwhere(subject.space.offered):
        for tensor in subject.space.units[u].tensors:
            if subject.space.formats[f].name != tensor.stored:
                rows.levels.packed(rows.packed(tensor), subject.space.formats[f])


def priced_batch(subject: Subject, tap: "Pricing", *, slope: Slope, batch: Batch) -> NDArray[np.float64]:
    """Run a batch forward and backward with the weights that the model has, and return what the tap found
    `(n_products, n_sequences, n_sums, n_units, n_formats + 1)`.
    """
    model, ids = subject.model, torch.from_numpy(batch.ids).to(subject.model.device)

    def logits() -> Torch:
        found: Torch = model.module(ids, use_cache=False).logits.float()
        return found

    with Tapped(model, tap):
        model.differentiate(logits, lambda found: slope(found, batch))
    return tap.values


class Pricing(Tap):
    """Multiply the gradient at the output of every use with every ΔW, a chunk of rows at a time."""

    def __init__(
        self, subject: Subject, products: tuple[Product, ...], *, at: Mapping[str, str], originals: Mapping[str, Torch], n_sequences: int
    ) -> None:
        """`at` has the name of the format of each tensor that differs from the original; a name of none has a change to every format."""
        model, self._space, self._rows, self._products = subject.model, subject.space, subject.priced_rows, products
        n_units, n_formats = self._space.offered.shape
        n_sums = 1 if self._rows.is_whole else 1 + self._rows.n_groups
        self._n_sequences, self.values = n_sequences, np.zeros((len(products), n_sequences, n_sums, n_units, n_formats + 1))
        self._tensors = {tensor.name: (u, tensor) for u, unit in enumerate(self._space.units) for tensor in unit.tensors}
        self._names, self._at = np.array([form.name for form in self._space.formats]), at
        names = {piece.parameter for pieces in model.pieces.values() for piece in pieces}
        self._current, self._originals = {name: model.module.get_parameter(name).detach() for name in names}, originals

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Price the uses of a linear layer when the gradient at its output `y` comes."""
        decided = [use for use in uses if use.tensor in self._tensors]  # routers, for instance, belong to no unit
        if decided and y.requires_grad:
            y.register_hook(lambda slopes: self._price_linear(decided, x.detach(), slopes))  # type: ignore[no-untyped-call]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Price the uses of a look-up likewise."""
        if y.is_leaf:
            y.requires_grad_(True)
        decided = [use for use in uses if use.tensor in self._tensors]
        y.register_hook(lambda slopes: self._price_embedding(decided, ids, slopes))  # type: ignore[no-untyped-call]

    def _price_linear(self, uses: list[Use], x: Torch, slopes: Torch) -> None:
        with torch.no_grad():
            inputs, outputs = (rows.reshape(self._n_sequences, -1, rows.shape[-1]).float() for rows in (x, slopes))
            for use in uses:
                for wanted, places, factors in self._chunks(use, inputs):
                    order = torch.from_numpy(use.order[wanted]).to(x.device)
                    arguments = inputs, outputs[:, :, order]
                    of_changes = [product.linear(*arguments) if self._rows.is_whole else product.by_row(*arguments) for product in self._products]
                    for f, change in self._changes(use, wanted, places):
                        self._add(use, f, [_sums(of_change(change), factors) for of_change in of_changes])

    def _price_embedding(self, uses: list[Use], ids: Torch, slopes: Torch) -> None:
        with torch.no_grad():
            for use in uses:
                row_of = np.argsort(use.order)  # torch row -> engine row
                rows = row_of[ids.cpu().numpy()]
                drawn, places, factors = self._drawn(use)
                looked_up = np.isin(drawn, rows)
                wanted = drawn[looked_up]
                if len(wanted):
                    place = np.searchsorted(wanted, rows).clip(max=len(wanted) - 1)
                    of_tokens = factors[looked_up][place] * (wanted[place] == rows)[..., None]  # (n_sequences, length, n_sums)
                    chosen = torch.from_numpy(place).to(ids.device)
                    for f, change in self._changes(use, wanted, places[looked_up]):
                        self._add(use, f, [_sums(product.embedding(slopes.float(), change[chosen]), of_tokens) for product in self._products])

    def _drawn(self, use: Use) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the drawn rows of a use: their numbers in it, their places in the levels, and their factors."""
        numbers, places, factors = self._rows.within(self._tensors[use.tensor][1], use.first_row, use.first_row + len(use.order))
        return numbers - use.first_row, places, factors[:, : self.values.shape[2]]

    def _changes(self, use: Use, wanted: NDArray[np.int64], places: NDArray[np.int64]) -> Iterator[tuple[int, Torch]]:
        """Yield the column of `values` and ΔW `(n_rows, n_columns)` of the rows `wanted` of a use, at `places` of the levels, for every offered
        format and for the change back; formats without any change are skipped.
        """
        u, tensor = self._tensors[use.tensor]
        current = _rows(self._current, use, wanted)
        stored = self._space.offered[u] & (self._names == tensor.stored)
        for f in np.flatnonzero(self._space.offered[u] & ~stored & (self._names != self._at.get(tensor.name, tensor.stored))):
            weights = self._rows.levels.some_rows(self._rows.packed(tensor), self._space.formats[f], places)
            yield int(f), use.piece.to_module(torch.from_numpy(weights).to(current)) - current
        if use.tensor in self._at and use.piece.parameter in self._originals:
            back = _rows(self._originals, use, wanted) - current
            yield from ((int(f), back) for f in (*np.flatnonzero(stored), -1))

    def _add(self, use: Use, column: int, sums: list[NDArray[np.float64]]) -> None:
        """Add sums `(n_sequences, n_sums)` of some rows of a use."""
        for values, of_product in zip(self.values, sums, strict=True):
            values[:, :, self._tensors[use.tensor][0], column] += of_product

    def _chunks(self, use: Use, inputs: Torch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Yield the drawn rows of a use, as many at a time as memory allows: their numbers in it, their places in the levels, and their factors."""
        n, length, n_columns = inputs.shape
        step = max(1, _CHUNK_BYTES // (4 * (max(n_columns, length) * n + 2 * n_columns)))
        wanted, places, factors = self._drawn(use)
        for start in range(0, len(wanted), step):
            some = slice(start, start + step)
            yield wanted[some], places[some], factors[some]


def _sums(products: Torch, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums `(n_sequences, n_sums)` of products: of whole sequences `(n_sequences,)` themselves, of rows `(n_sequences, n_rows)` by their
    `factors` `(n_rows, n_sums)`, and of tokens by those `(n_sequences, n_tokens, n_sums)`.
    """
    found = products.double().cpu().numpy()
    if found.ndim == 1:
        return found[:, None]
    return found @ factors if factors.ndim == 2 else np.einsum("nt,nts->ns", found, factors)


def _rows(parameters: Mapping[str, Torch], use: Use, wanted: NDArray[np.int64]) -> Torch:
    """Return the rows `wanted` of a use, in the engine's order, float32."""
    matrix = use.piece.matrix(parameters[use.piece.parameter])
    rows = matrix[torch.from_numpy(use.order[wanted]).to(matrix.device)].float()
    return rows if use.columns is None else rows[:, torch.from_numpy(indices(use.columns)).to(rows.device)]
