"""Fit the latency model of an engine on one machine to timed models.

Nonnegative least squares on relative errors (Lawson and Hanson's NNLS).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from bitwright.devices.latency import POWER_UNKNOWN, Latency, PowerUnknown


@dataclass(frozen=True)
class Timed:
    """Timed model: bytes that a token reads by format, and seconds per token."""

    read_bytes: Mapping[str, float]
    seconds_per_token: float


def fit_latency(timed: Sequence[Timed], *, n_threads: int = 1, power_watts: float | PowerUnknown = POWER_UNKNOWN) -> Latency:
    """Fit the latency model of least squared relative error to the timed models, on `n_threads` threads.

    Every format needs a timed model, and models of two depths separate the time per token from the time per byte; the constant time of a layer is
    distributed over its bytes.
    """
    formats = sorted({form for model in timed for form in model.read_bytes})
    rows = np.array([[*(model.read_bytes.get(form, 0) for form in formats), 1.0] for model in timed], dtype=np.float64)
    seconds = np.array([model.seconds_per_token for model in timed])
    scale = rows.max(axis=0)
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(timed)))
    found = found / scale
    error = float(np.sqrt(np.mean(np.square(rows @ found / seconds - 1))))
    return Latency(dict(zip(formats, found[:-1].tolist(), strict=True)), float(found[-1]), error, n_threads, power_watts)
