"""Quantization error of each unit in each format, and the formats worth offering.

With ΔW = Q(W) − W and d the importance (mean squared activation of an input channel):
    plain     Σ ΔW² / Σ W²
    weighted  Σ d ΔW² / Σ d W²      the error of the layer's output, relative to its power, for uncorrelated inputs

Both are taken over all rows, or over the rows of a sample by their weights: then they are ratios of two unbiased sums.

A pair of unit and format with an error above 1, larger than that of zero weights, is left out as if it could not be packed, unless the unit has no
other; formats with half-float scales reach that for very small weights.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.packed_cache import PackedTensors
from bitwright.compress.codecs.row_sample import RowSample, all_rows
from bitwright.compress.models.source import Floats
from bitwright.progress import Progress
from bitwright.spaces import Format, Space, Unit

_SMALLEST, _LARGEST = 2.0**-40, 2.0**40  # range of the largest weight in which squares and their sums need no scaling


@dataclass(frozen=True, eq=False)
class Distortion:
    """Relative squared errors, both `(n_units, n_formats)` float64; NaN for a pair that was not tried."""

    plain: NDArray[np.float64]
    weighted: NDArray[np.float64]

    def worth_offering(self, space: Space) -> NDArray[np.bool_]:
        """Return a mask `(n_units, n_formats)` of the pairs on the Pareto front of size and weighted error of their unit, or on that of bits alone or
        of bits and one reduction, so that a plan of those is as good as if there were no others.

        Of two that are equal in both, the first among the formats stays.
        """
        possible = space.offered & ~np.isnan(self.weighted)
        reductions = np.array([form.reduction for form in space.formats])
        within = [self._front(space, possible & np.isin(reductions, ["", each])) for each in np.unique(reductions)]
        found: NDArray[np.bool_] = np.any([self._front(space, possible), *within], axis=0)
        return found

    def _front(self, space: Space, possible: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the pairs among those `possible` that no other of their unit beats in both size and error."""
        is_offered = possible.copy()
        for u, row in enumerate(is_offered):
            best = np.inf
            for f in np.lexsort((self.weighted[u], space.size_bits[u])):
                is_offered[u, f] = row[f] and self.weighted[u, f] < best
                best = self.weighted[u, f] if is_offered[u, f] else best
        return is_offered


def measure_distortion(space: Space, packed_tensors: PackedTensors, *, progress: Progress) -> Distortion:
    """Quantize every offered pair and measure its error against the original weights; see `sampled_distortion`."""
    return sampled_distortion(space, all_rows(packed_tensors), progress=progress)


def sampled_distortion(space: Space, sample: RowSample, *, progress: Progress) -> Distortion:
    """Quantize the rows of a sample in every offered format and measure their error against the original weights; see `distortion_of_unit`."""
    errors = np.full((len(space.units), 2, len(space.formats)), np.nan)
    with progress.stage("Quantizing in every format", sum(unit.n_weights for unit in space.units)) as advance:
        for u, unit in enumerate(space.units):
            errors[u] = distortion_of_unit(space, u, sample)
            advance(unit.n_weights)
    return Distortion(errors[:, 0], errors[:, 1])


def distortion_of_unit(space: Space, u: int, sample: RowSample) -> NDArray[np.float64]:
    """Return the plain and the weighted errors `(2, n_formats)` of one unit of a space. Its formats are tried from the smallest up, and not beyond
    the first that is lossless.
    """
    unit, errors = space.units[u], np.full((2, len(space.formats)), np.nan)
    for f in np.argsort(space.size_bits[u], kind="stable"):
        if np.nanmin(errors[0], initial=np.inf) == 0:
            break
        if space.offered[u, f] and _can_encode(unit, space.formats[f], sample.levels):
            errors[:, f] = _errors(unit, space.formats[f], sample)
    return np.stack(_better_than_zeros(*errors))


def _better_than_zeros(plain: NDArray[np.float64], weighted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Replace errors `(n_formats,)` above 1 by NaN; if all are above 1, the smallest stays."""
    sound = weighted <= 1
    if not sound.any() and not np.isnan(weighted).all():
        sound = weighted == np.nanmin(weighted)
    return np.where(sound, plain, np.nan), np.where(sound, weighted, np.nan)


def _can_encode(unit: Unit, form: Format, packed_tensors: PackedTensors) -> bool:
    return not form.needs_importance or all(packed_tensors.knows_importance(tensor) for tensor in unit.tensors)


def _errors(unit: Unit, form: Format, sample: RowSample) -> tuple[float, float]:
    """Return both relative errors of a unit, over all of its tensors."""
    sums = np.zeros(4)
    for tensor in unit.tensors:
        packed = sample.packed(tensor)
        original, exponent = _near_one(sample.levels.source.read(packed))
        decoded = sample.levels.weights(packed, form)
        change = (np.ldexp(decoded, exponent) if exponent else decoded) - original
        channels, weights = sample.levels.importance_of(tensor), sample.row_weights(tensor)
        powers = [_power(rows, channels, weights) for rows in (change, original)]
        sums += np.ldexp(np.concatenate(powers), -2 * exponent)
    plain, weighted = np.divide(sums[:2], sums[2:], out=np.zeros(2), where=sums[2:] > 0)
    return float(plain), float(weighted)


def _near_one(weights: Floats) -> tuple[Floats, int]:
    """Scale weights whose squares leave the range of float32 by a power of two, which is exact; return them and the exponent."""
    largest = float(max(weights.max(initial=0), -weights.min(initial=0)))
    if not largest or _SMALLEST < largest < _LARGEST:
        return weights, 0
    exponent = int(np.clip(-np.frexp(largest)[1], -120, 120))
    scaled: Floats = np.ldexp(weights, exponent)
    return scaled, exponent


def _power(weights: Floats, channels: Floats, of_rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ w² and Σ d w² of `weights` `(n_rows, n_columns)` with `channels` `(n_groups, n_columns)`: shape `(2,)`. Each row counts by its weight
    in `of_rows` `(n_rows,)`.
    """
    rows = weights if (of_rows == 1).all() else weights * np.sqrt(of_rows, dtype=np.float32)[:, None]
    columns = np.einsum("grc,grc->gc", *2 * [rows.reshape(max(len(channels), 1), -1, rows.shape[1])]).astype(np.float64)
    plain = columns.sum()
    return np.array([plain, (columns * channels).sum() if len(channels) else plain])
