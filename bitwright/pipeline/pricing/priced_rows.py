"""Rows by which a run prices formats: all of a small model, a sample of a larger one, or as many as the settings say.

Quantizing is what costs: a sample needs a few hundred rows of a tensor in every format, and a tensor is then quantized whole only in the formats of
plans that are measured. Small models are priced by all rows, which takes seconds; so are roundings that depend on the calibration text (GPTQ), whose
codes cannot be made again.
"""

from functools import partial

from bitwright.compress import RowSample, needs_moments
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.settings import ALL_ROWS
from bitwright.predictors import row_sample, rows_wanted
from bitwright.spaces import Space, Tensor, weight_space

#: a model with more weights in its units is priced by a sample
WHOLE_WEIGHTS = 1 << 24
#: relative standard error that the sample is to add to a price
ERROR_WANTED = 0.1


def priced_rows(loaded: LoadedRun, space: Space) -> RowSample | None:
    """Return the sample of rows by which the run prices the units of `space`, None for all rows."""
    said = loaded.settings.price_rows
    tensors = [tensor for unit in weight_space(space).units for tensor in unit.tensors]
    is_small = sum(tensor.n_weights for tensor in tensors) <= WHOLE_WEIGHTS
    if said == ALL_ROWS or needs_moments(loaded.settings.rounding) or (not said and is_small):
        return None
    n_rows = partial(_as_said, int(said)) if said else partial(rows_wanted, error=ERROR_WANTED)
    return row_sample(loaded.model, loaded.levels, loaded.texts.calibration, tensors, n_rows=n_rows, seed=loaded.settings.seed)


def _as_said(n_rows: int, tensor: Tensor) -> int:  # noqa: ARG001
    return n_rows
