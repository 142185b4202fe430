"""Tiers of formats: rank units by importance and give each tier of the ranking its own format.

LayerwiseQuant (arXiv 2406.17415) gives the lower of two formats to the n least important layers, so that average bits are fractional (`two_tiers`);
CAMERA-Q (AAAI 2026) gives 8, 4 and 2 bits to the first 10 %, the next 30 % and the last 60 % of its micro-experts (`tiered`); CPTQuant (arXiv
2412.03599) has three tiers, too, without saying where they end. None of them asks whether the file meets a budget. `tiered_within` does: it widens or
narrows all tiers but the last by one factor, as far as the budget allows.

Ratios are of weights, which for units of one size, as in those systems, is the same as of units. A unit belongs to the tier in which the middle of
its weights falls. A unit that is not offered the format of its tier gets the one of `Space.uniform`.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import BudgetError, UserError
from bitwright.search.solvers.scores import checked_scores, weights_of
from bitwright.spaces import Choice, Format, Space


def tiered(space: Space, scores: NDArray[np.float64], *, formats: tuple[Format, ...], ratios: tuple[float, ...]) -> Choice:
    """Return the choice `(n_units,)` that gives `formats`, the finest first, to shares `ratios` of the weights, the most important first.

    `scores` `(n_units,)` are high where a unit is important; of equals the first comes first.

    Raises:
        UserError: the scores are not one finite number per unit; the formats do not go from fine to coarse; the ratios are negative, do not sum
            to one or are not one per format.
    """
    cuts = _cuts(formats, ratios)
    order = _ranked(checked_scores(space, scores))
    tier = np.searchsorted(cuts, _middles(space, order), side="right")  # (n_units,)
    choice = np.empty(len(order), dtype=np.int64)
    choice[order] = _options(space, formats)[tier, order]
    return choice


def tiered_within(space: Space, scores: NDArray[np.float64], budget_bits: int, *, formats: tuple[Format, ...], ratios: tuple[float, ...]) -> Choice:
    """Return the choice of `tiered` with all tier ends scaled by the largest factor whose file has at most `budget_bits`.

    With a factor of one it is `tiered`; with zero all units have the coarsest format, and with a large one the finest.

    Raises:
        BudgetError: the file is larger than the budget with all units in the coarsest format.
        UserError: as in `tiered`.
    """
    cuts = _cuts(formats, ratios)
    order = _ranked(checked_scores(space, scores))
    options = _options(space, formats)[:, order][::-1].T  # (n_units, n_tiers): the coarsest first, the most important unit first
    size_bits = space.size_bits[order[:, None], options]
    with np.errstate(divide="ignore"):
        factor = _middles(space, order)[:, None] / cuts[::-1]  # (n_units, n_tiers - 1): beyond it a unit leaves its tier for the next finer
    steps = np.argsort(factor, axis=None, kind="stable")
    steps = steps[: np.isfinite(factor).sum()]
    totals = int(size_bits[:, 0].sum()) + space.fixed_bits + np.append(0, np.cumsum(np.diff(size_bits, axis=1).ravel()[steps]))
    n_steps = np.flatnonzero(totals <= budget_bits)
    if not len(n_steps):
        raise BudgetError(
            f"A budget must hold the file with every unit in the coarsest tier, {formats[-1].name}, {int(totals[0]) // 8:,} bytes, but it is "
            f"{budget_bits // 8:,}: raise it, or name a coarser format."
        )
    climbed = np.bincount(steps[: n_steps[-1]] // max(len(cuts), 1), minlength=len(order))  # (n_units,): tiers above the coarsest
    choice = np.empty(len(order), dtype=np.int64)
    choice[order] = options[np.arange(len(order)), climbed]
    return choice


def two_tiers(space: Space, scores: NDArray[np.float64], budget_bits: int, *, high: Format, low: Format) -> Choice:
    """Give `high` to as many of the most important units as `budget_bits` allow, `low` to all others (LayerwiseQuant). Raises as `tiered_within`."""
    return tiered_within(space, scores, budget_bits, formats=(high, low), ratios=(0.5, 0.5))


def _cuts(formats: tuple[Format, ...], ratios: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the ends of all tiers but the last, as shares of the weights `(n_tiers - 1,)`."""
    widths = [form.bits_per_weight for form in formats]
    if not formats or sorted(widths, reverse=True) != widths:
        raise UserError(f"Tiers must go from the finest format to the coarsest, and these have {widths} bits per weight: reorder them.")
    if len(ratios) != len(formats) or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-9:
        raise UserError(f"Ratios must be one for each of {len(formats)} tiers, not negative, and sum to one; these are {ratios}: change them.")
    return np.cumsum(ratios)[:-1]


def _ranked(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.argsort(-scores, kind="stable")
    return order


def _middles(space: Space, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of all weights before the middle of each unit, the units in `order` `(n_units,)`."""
    n_weights = weights_of(space)[order]
    middles: NDArray[np.float64] = (np.cumsum(n_weights) - n_weights / 2) / n_weights.sum()
    return middles


def _options(space: Space, formats: tuple[Format, ...]) -> NDArray[np.int64]:
    """Return the format index of each unit in each tier `(n_tiers, n_units)`."""
    return np.stack([space.uniform(form) for form in formats])
