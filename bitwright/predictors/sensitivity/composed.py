"""Combine sensitivity tables into one.

    power product   Π_k T_k^e_k                      PMQ's φ^α w^β ε^γ (Huang et al., "Mixture Compressor", ICLR 2025)
    rank average    mean_k rank of a pair in T_k     for tables in units that cannot be compared
    scaled sum      Σ_k c_k (T_k − min) / (max − min)
    reweighted      c_u T[u, f]                      SPDY's coefficients (Frantar & Alistarh, ICML 2022); a search tunes them
    repaired        the nearest table in which a larger format never costs more

Ranks and ranges are over the pairs priced by all tables; all other pairs are NaN in the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bitwright.spaces import Space

Table = NDArray[np.float64]  # (n_units, n_formats)


def power_product(tables: Sequence[Table], exponents: Sequence[float]) -> Table:
    """Return Π T^e of tables `(n_units, n_formats)`, or of scores of units `(n_units, 1)`, none below zero. An exponent of 0 leaves a table out.

    Raises:
        ValueError: a price is below zero, or the numbers of exponents and tables differ.
    """
    if any((table < 0).any() for table in tables):
        raise ValueError("a power product needs prices of zero or more: shift or repair the table first")
    factors = [table**exponent for table, exponent in zip(tables, exponents, strict=True) if exponent]
    made: Table = np.prod(np.broadcast_arrays(*factors), axis=0) if factors else np.ones_like(tables[0])
    return made


def rank_average(tables: Sequence[Table]) -> Table:
    """Return the mean rank of each pair over the tables, from 0 for the cheapest pair to 1 for the most expensive; equal prices share a rank."""
    both = _shared(tables)
    ranks = np.mean([scipy.stats.rankdata(table[both]) for table in tables], axis=0)
    return _spread(both, (ranks - 1) / max(int(both.sum()) - 1, 1))


def scaled_sum(tables: Sequence[Table], coefficients: Sequence[float]) -> Table:
    """Return Σ c (T − min T) / (max T − min T); a table whose prices are all equal adds nothing."""
    both = _shared(tables)
    total = np.zeros(int(both.sum()))
    for table, coefficient in zip(tables, coefficients, strict=True):
        prices = table[both] - table[both].min()
        total += coefficient * prices / (prices.max() or 1.0)
    return _spread(both, total)


def reweighted(table: Table, coefficients: NDArray[np.float64]) -> Table:
    """Multiply every price of a unit by the unit's coefficient `(n_units,)`."""
    return table * coefficients[:, None]


@dataclass(frozen=True, eq=False)
class Repaired:
    """Table in which a larger format of a unit never costs more, and the pairs `changed` `(n_changed, 2)` whose price was changed for it."""

    table: Table
    changed: NDArray[np.int64]


def repaired(table: Table, space: Space) -> Repaired:
    """Return the least-squares nearest table whose prices never increase with the size of a format: isotonic regression within each unit (Barlow et
    al., 1972).

    Formats of equal size are ordered by falling price. Pairs that are not offered or have no price stay unchanged.
    """
    mended = table.copy()
    for u, row in enumerate(table):
        has = np.flatnonzero(space.offered[u] & ~np.isnan(row))
        order = has[np.lexsort((-row[has], space.size_bits[u, has]))]
        mended[u, order] = isotonic_regression(row[order], increasing=False).x
    changed = ~np.isclose(mended, table, rtol=1e-12, atol=0, equal_nan=True)
    return Repaired(np.where(changed, mended, table), np.argwhere(changed))


def _shared(tables: Sequence[Table]) -> NDArray[np.bool_]:
    shared: NDArray[np.bool_] = np.all([~np.isnan(table) for table in tables], axis=0)
    return shared


def _spread(where: NDArray[np.bool_], values: NDArray[np.float64]) -> Table:
    table = np.full(where.shape, np.nan)
    table[where] = values
    return table
