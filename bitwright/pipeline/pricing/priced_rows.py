"""Rows by which a run prices formats: all of a small model, a sample of a larger one, or as many as the settings say.

Quantizing is what costs: a sample needs a few hundred rows of a tensor in every format, and a tensor is then quantized whole only in the formats of
plans that are measured. Small models are priced by all rows, which takes seconds; so are roundings that depend on the calibration text (GPTQ), whose
codes cannot be made again, and spaces with formats whose rows share something (pairs of low rank), which cannot be made of some rows.

A few rows may hold most of a tensor's price, so rows are drawn by what a light pass over a few sequences lets expect of each. Where prices are no
squares of products with a gradient, rows are drawn with equal chances: then there is nothing to expect.
"""

import hashlib
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import RowSample, matrix_shape, needs_moments
from bitwright.objectives import Tokens
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.run import Run
from bitwright.pipeline.settings import ALL_ROWS
from bitwright.predictors import Subject, expected_squares, gradient_products, row_sample, rows_wanted
from bitwright.spaces import Space, Tensor, weight_space

#: the array of the standard errors `(n_units, n_formats)` that the sample adds to the prices by gradient
PRICE_ERRORS = "standard errors of prices"
_SAMPLED = "rows that formats are priced by"
_SEQUENCES = 4  # that show which rows matter
#: sensitivities whose sweep has products
SWEPT = ("gradient", "joint", "gradient-raw")
#: a model with more weights in its units is priced by a sample
WHOLE_WEIGHTS = 1 << 24
#: relative standard error that the sample is to add to a price
ERROR_WANTED = 0.1


def priced_rows(loaded: LoadedRun, space: Space) -> RowSample | None:
    """Return the sample of rows by which the run prices the units of `space`, None for all rows."""
    said = loaded.settings.price_rows
    tensors = [tensor for unit in weight_space(space).units for tensor in unit.tensors]
    is_small = sum(tensor.n_weights for tensor in tensors) <= WHOLE_WEIGHTS
    share_something = any(form.shared_bytes(1) and of.any() for form, of in zip(space.formats, space.offered.T, strict=True))
    if said == ALL_ROWS or needs_moments(loaded.settings.rounding) or share_something or (not said and is_small):
        return None
    n_rows = partial(_as_said, int(said)) if said else partial(rows_wanted, error=ERROR_WANTED)
    sizes = _expected_squares(loaded, space) if loaded.settings.sensitivity in SWEPT else None
    return row_sample(loaded.model, loaded.levels, loaded.texts.calibration, tensors, n_rows=n_rows, seed=loaded.settings.seed, sizes=sizes)


def store_price_errors(loaded: LoadedRun, subject: Subject) -> None:
    """Store in the run the standard errors that the subject's sample of rows adds to its prices, and a description, if there is a sample."""
    if subject.sample is None or loaded.settings.sensitivity not in SWEPT:
        return
    products = gradient_products(subject)
    errors, prices = products.sampling_errors(), products.squares().mean(axis=0) / (2 * products.n_tokens)
    tensors = [tensor for unit in weight_space(subject.space).units for tensor in unit.tensors]
    drawn, whole = (sum(tensor.n_weights for tensor in each) for each in (map(subject.sample.packed, tensors), tensors))
    share = float(np.median(errors[prices > 0] / prices[prices > 0]))
    loaded.store.put_array(PRICE_ERRORS, errors)
    loaded.store.put_text(_SAMPLED, f"{drawn:,} of {whole:,} weights, which adds a relative standard error of {share:.0%} to the median price")


def _expected_squares(loaded: LoadedRun, space: Space) -> dict[str, NDArray[np.float64]]:
    """Return what each row of a tensor is expected to have of its price, up to a factor, from the first sequences of the calibration text; the run
    keeps it.
    """
    settings, store, whole = loaded.settings, loaded.store, loaded.texts.calibration
    tokens, tensors = Tokens(whole.ids[:_SEQUENCES], whole.text), [tensor for unit in weight_space(space).units for tensor in unit.tensors]
    digest = hashlib.sha256(repr([loaded.order.digest, *(tensor.name for tensor in tensors)]).encode()).hexdigest()[:12]
    key = f"expected squares of rows/{settings.seed}/{digest}"
    if not store.has_array(key):
        with timed(store, "rows", 2 * tokens.n_tokens):
            subject = Subject(loaded.model, loaded.levels, weight_space(space), tokens, settings.seed, store, loaded.progress)
            found = expected_squares(subject)
        store.put_array(key, np.concatenate([found[tensor.name] for tensor in tensors]))
    parts = np.split(store.array(key).astype(np.float64), np.cumsum([matrix_shape(tensor)[0] for tensor in tensors])[:-1])
    return {tensor.name: part for tensor, part in zip(tensors, parts, strict=True)}


def sample_text(run: Run) -> dict[str, str]:
    """Return the stored description of the sample under its heading; empty if there is none."""
    return {_SAMPLED: run.store.text(_SAMPLED)} if run.store.has_text(_SAMPLED) else {}


def _as_said(n_rows: int, tensor: Tensor) -> int:  # noqa: ARG001
    return n_rows
