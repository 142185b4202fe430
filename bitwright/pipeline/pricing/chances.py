"""Formats that are slow to quantize to, tried only where a cheap bound leaves them a chance in a file of the size that is asked for.

libggml searches a codebook for every few weights of IQ1 to IQ3, which takes many times as long as rounding. Before any of them is tried, the
others are priced on the first sequences of the text. An error falls by 6 dB with every bit (Bennett, "Spectra of quantized signals", Bell System
Technical Journal 27, 1948), whatever the format, so with c the other format of a unit whose size is closest, the price of a slow one f is taken to be
at least

    ½ · price(c) · 4^(bits(c) − bits(f))        measured ratios: docs/predictors.md

With these bounds, pairs are left out that are in no allocation as good as the best one without slow formats, at the size asked for and at
larger ones (`within_reach`). A unit without other formats keeps its slow ones.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion
from bitwright.objectives import Tokens
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.pricing.price_table import quantized_distortion, subject_of
from bitwright.pipeline.pricing.priced_rows import SWEPT, priced_rows
from bitwright.pipeline.run import Run
from bitwright.predictors import gradient_products, proxy_named, stored
from bitwright.search import solve_lagrangian, within_reach
from bitwright.spaces import Space

Table = NDArray[np.float64]
_LEFT_OUT = "slow formats"
_SEQUENCES = 8  # that the bound is computed from
LEAST = 0.5  # of what the closest format makes of a price
_SIZES = (1, 1.03, 1.1, 1.25, 1.5, 2, 3)  # times the size asked for


def worth_trying(loaded: LoadedRun, everything: Space, least_bytes: int) -> tuple[Space, tuple[Space, Distortion] | None]:
    """Return the space without the slow formats that have no chance in files of `least_bytes` or more, and the space that was quantized to know it,
    with its errors. It is the space as it is, and None, where `least_bytes` is 0, where the run prices by all rows or otherwise than by a gradient,
    or where the formats that are not slow reach no file of that size.
    """
    slow = everything.offered & np.array([form.is_slow for form in everything.formats])
    others = everything.narrowed(~slow | ~(everything.offered & ~slow).any(axis=1, keepdims=True))
    if not least_bytes or not (slow & ~others.offered).any() or loaded.settings.sensitivity not in SWEPT or priced_rows(loaded, everything) is None:
        return everything, None
    if 8 * least_bytes < others.total_bits(others.smallest()):
        return everything, None
    key, store = f"slow formats/{least_bytes}", loaded.store
    errors = [f"{key}/{name}" for name in ("plain", "weighted")]
    if not store.has_array(key):
        distortion, prices = _first_prices(loaded, others)
        for name, of_pairs in zip(errors, (distortion.plain, distortion.weighted), strict=True):
            store.put_array(name, of_pairs)
        worth = others.narrowed(distortion.worth_offering(others))
        store.put_array(key, others.offered | with_a_chance(everything, worth, prices, least_bits=8 * least_bytes))  # last: where it is, all are
    found = everything.narrowed(store.array(key).astype(np.bool_))
    n_left_out, n_slow = int(everything.offered.sum() - found.offered.sum()), int(slow.sum())
    store.put_text(_LEFT_OUT, f"{n_left_out:,} of {n_slow:,} pairs not tried: by a bound, only files below {least_bytes:,} bytes could use them")
    return found, (others, Distortion(*(store.array(name).astype(np.float64) for name in errors)))


def with_a_chance(everything: Space, others: Space, prices: Table, *, least_bits: int) -> NDArray[np.bool_]:
    """Return the pairs `(n_units, n_formats)` of a space that are among its `others`, whose `prices` `(n_units, n_formats)` are known, or that have a
    chance in files of `least_bits` or more.
    """
    bounds = lower_bounds(everything, others, prices)
    found = others.offered.copy()
    for size in _SIZES:
        budget_bits = int(size * least_bits)
        best = solve_lagrangian(others, prices, budget_bits).loss
        found |= within_reach(everything, bounds, budget_bits, loss_at_most=best)
    return found


def lower_bounds(everything: Space, others: Space, prices: Table) -> Table:
    """Return the prices `(n_units, n_formats)` of a space's `others`, and bounds on those of its other pairs; 0 where nothing is offered."""
    bounds = np.where(others.offered, prices, 0.0)
    for u, f in np.argwhere(everything.offered & ~others.offered):
        known = np.flatnonzero(others.offered[u])
        bits = everything.size_bits[u] / everything.units[u].n_weights
        closest = known[np.argmin(np.abs(bits[known] - bits[f]))]
        bounds[u, f] = LEAST * prices[u, closest] * 4.0 ** (bits[closest] - bits[f])
    return bounds


def left_out_text(run: Run) -> dict[str, str]:
    """Return the stored description of what was not tried under its heading; empty if everything was."""
    return {_LEFT_OUT: run.store.text(_LEFT_OUT)} if run.store.has_text(_LEFT_OUT) else {}


def _first_prices(loaded: LoadedRun, others: Space) -> tuple[Distortion, Table]:
    """Return the weight errors of a space's pairs, and prices `(n_units, n_formats)` from the first sequences of the calibration text of those worth
    offering, 0 elsewhere.
    """
    with timed(loaded.store, "bound") as passed:
        distortion = quantized_distortion(loaded, others)  # on all cores, where a sweep quantizes what it needs on one
        subject = subject_of(loaded, stored(others.narrowed(distortion.worth_offering(others))))
        tokens = Tokens(subject.tokens.ids[:_SEQUENCES], subject.tokens.text)
        passed.n_tokens = proxy_named("gradient").passes(subject.space).tokens(tokens.n_tokens)
        products = gradient_products(replace(subject, tokens=tokens))
    prices: Table = products.squares().mean(axis=0) / (2 * products.n_tokens)
    return distortion, prices
