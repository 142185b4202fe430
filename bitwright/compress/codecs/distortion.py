"""What each format does to the weights of each unit, and which formats are worth offering at all.

With ΔW = Q(W) − W and d the importance (mean squared activation of an input channel):
    plain     Σ ΔW² / Σ W²
    weighted  Σ d ΔW² / Σ d W²      the error of the layer's output, relative to its power, for uncorrelated inputs


A format that makes more of an error than zeros would, above 1, as those with half-float scales may of very small weights, is not worth trying: the
pair is left out as if it could not be packed, unless the unit has no other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.packed_cache import Levels
from bitwright.compress.models.source import Floats
from bitwright.progress import Progress
from bitwright.spaces import Format, Space, Unit

_SMALLEST, _LARGEST = 2.0**-40, 2.0**40  # of the largest weights whose squares, and sums of them, are left as they are


@dataclass(frozen=True, eq=False)
class Distortion:
    """Relative squared errors, both `(n_units, n_formats)` float64: NaN where a pair was not tried."""

    plain: NDArray[np.float64]
    weighted: NDArray[np.float64]

    def worth_offering(self, space: Space) -> NDArray[np.bool_]:
        """Pairs `(n_units, n_formats)` that no other pair of the same unit beats in both size and weighted error.

        Of two that are equal in both, the one that comes first among the formats stays.
        """
        keep = space.offered & ~np.isnan(self.weighted)
        for u, row in enumerate(keep):
            best = np.inf
            for f in np.lexsort((self.weighted[u], space.size_bits[u])):
                keep[u, f] = row[f] and self.weighted[u, f] < best
                best = self.weighted[u, f] if keep[u, f] else best
        return keep


def measure_distortion(space: Space, levels: Levels, *, progress: Progress) -> Distortion:
    """Pack every offered pair and compare it with the original weights.

    A unit's formats are tried from the smallest up; once one is free of error the larger ones are pointless and are not packed.
    """
    plain = np.full(space.offered.shape, np.nan)
    weighted = plain.copy()
    with progress.stage("Quantizing every tensor in every format", sum(unit.n_weights for unit in space.units)) as advance:
        for u, unit in enumerate(space.units):
            for f in np.argsort(space.size_bits[u], kind="stable"):
                if np.nanmin(plain[u], initial=np.inf) == 0:
                    break
                if space.offered[u, f] and _can_encode(unit, space.formats[f], levels):
                    plain[u, f], weighted[u, f] = _errors(unit, space.formats[f], levels)
            plain[u], weighted[u] = _better_than_zeros(plain[u], weighted[u])
            advance(unit.n_weights)
    return Distortion(plain, weighted)


def _better_than_zeros(plain: NDArray[np.float64], weighted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The errors `(n_formats,)` of a unit without those above 1; where that leaves none, the least of them."""
    sound = weighted <= 1
    if not sound.any() and not np.isnan(weighted).all():
        sound = weighted == np.nanmin(weighted)
    return np.where(sound, plain, np.nan), np.where(sound, weighted, np.nan)


def _can_encode(unit: Unit, form: Format, levels: Levels) -> bool:
    return not form.needs_importance or all(levels.knows_importance(tensor) for tensor in unit.tensors)


def _errors(unit: Unit, form: Format, levels: Levels) -> tuple[float, float]:
    """Both relative errors of one unit, over all of its tensors."""
    sums = np.zeros(4)
    for tensor in unit.tensors:
        original, exponent = _near_one(levels.source.read(tensor))
        decoded = levels.weights(tensor, form)
        change = (np.ldexp(decoded, exponent) if exponent else decoded) - original
        channels = levels.importance_of(tensor)
        sums += np.ldexp(np.concatenate([_power(change, channels), _power(original, channels)]), -2 * exponent)
    plain, weighted = np.divide(sums[:2], sums[2:], out=np.zeros(2), where=sums[2:] > 0)
    return float(plain), float(weighted)


def _near_one(weights: Floats) -> tuple[Floats, int]:
    """Weights whose squares float32 does not hold, times the power of two that brings them near one, which changes no digit; and its exponent."""
    largest = float(max(weights.max(initial=0), -weights.min(initial=0)))
    if not largest or _SMALLEST < largest < _LARGEST:
        return weights, 0
    exponent = int(np.clip(-np.frexp(largest)[1], -120, 120))
    scaled: Floats = np.ldexp(weights, exponent)
    return scaled, exponent


def _power(weights: Floats, channels: Floats) -> NDArray[np.float64]:
    """Σ w² and Σ d w² of `weights` `(n_rows, n_columns)` with `channels` `(n_groups, n_columns)`: shape `(2,)`."""
    columns = np.einsum("grc,grc->gc", *2 * [weights.reshape(max(len(channels), 1), -1, weights.shape[1])]).astype(np.float64)
    plain = columns.sum()
    return np.array([plain, (columns * channels).sum() if len(channels) else plain])
