"""Weights that few formats hold, or none, as a run tells of them: which pairs they keep from being offered, and what stays as it is stored."""

import numpy as np

from bitwright.compress import extremes
from bitwright.pipeline.run import Run
from bitwright.pipeline.workbench import Workbench

_EXTREMES = "weights beyond half floats"


def keep_extremes(bench: Workbench) -> None:
    """Keep in the run, in words, which matrices have them, where some have."""
    found = extremes(bench.model)
    told = [
        f"{name} {f'goes up to {largest:.3g}' if np.isfinite(largest) else 'has infinite or undefined ones and stays as it is stored'}"
        for name, largest in found.items()
    ]
    if told:
        bench.store.put_text(_EXTREMES, "; ".join(told))


def extremes_text(run: Run) -> dict[str, str]:
    """The same under a heading that says so; nothing where no matrix has such weights."""
    if not run.store.has_text(_EXTREMES):
        return {}
    return {_EXTREMES: f"{run.store.text(_EXTREMES)}; no format is offered that would not hold them"}
