"""Report of weights too large for half-precision scales, infinite or NaN, for which few formats or none are offered."""

import numpy as np

from bitwright.compress import extremes
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.run import Run

_EXTREMES = "weights beyond half floats"


def store_extremes(loaded: LoadedRun) -> None:
    """Store in the run a description of the matrices that have such weights, if any."""
    found = extremes(loaded.model)
    told = [
        f"{name} {f'goes up to {largest:.3g}' if np.isfinite(largest) else 'has infinite or NaN ones and stays unquantized'}"
        for name, largest in found.items()
    ]
    if told:
        loaded.store.put_text(_EXTREMES, "; ".join(told))


def extremes_text(run: Run) -> dict[str, str]:
    """Return the stored description under its heading; empty if no matrix has such weights."""
    if not run.store.has_text(_EXTREMES):
        return {}
    return {_EXTREMES: f"{run.store.text(_EXTREMES)}; formats that cannot hold them are not offered"}
