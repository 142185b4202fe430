"""Checks of the original model before a search, whose results the run stores: parity with the engine, and weights beyond half precision.

A search measures in torch what llama.cpp will run. So the original is written to a GGUF file with every tensor as it is stored, run in llama.cpp, and
the next-token distributions after calibration contexts are compared, from a quarter of a sequence to all of it. If most contexts of some length
differ by more than `HEALTHY_NATS`, which no rounding explains, the search does not start.

Weights too large for half-precision scales, infinite or NaN leave few formats to offer, or none.
"""

import json

import numpy as np

from bitwright.compress import extremes
from bitwright.engines import HEALTHY_NATS
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.run import Run

_PARITY, _EXTREMES = "parity", "weights beyond half floats"


def require_parity(loaded: LoadedRun) -> None:
    """Raise if the engine does not compute what torch does; checked once in a run, for engines with a `Parity`.

    Raises:
        ModelError: the engine refuses the model, computes something else, or tokenizes text differently.
        OutputError: there is no disk space for a copy of the model.
    """
    parity = loaded.engine.parity
    if parity is None or loaded.store.has_text(_PARITY):
        return
    limit = loaded.model.source.context_length
    contexts = parity.contexts(loaded.texts.calibration.ids, limit)
    title = f"Comparing the original in {loaded.engine.name}"
    with timed(loaded.store, _PARITY, sum(map(len, contexts))), loaded.progress.stage(title, len(contexts)) as advance:
        found = parity.compare(loaded.model, contexts, loaded.folder, advance)
    loaded.store.put_text(_PARITY, json.dumps(found))


def parity_text(run: Run) -> dict[str, str]:
    """Return the stored result under its heading; empty if there was no check."""
    if not run.store.has_text(_PARITY):
        return {}
    found = json.loads(run.store.text(_PARITY))
    told = f"{found['nats_per_token']:.5f} ± {found['standard_error']:.5f} nats/token over contexts of up to {found['length']:,} tokens"
    return {f"the original in {run.settings.target} against torch": f"{told}; more than {HEALTHY_NATS} would have ended the run"}


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
