"""What each format does to the weights of each unit, and which formats are worth offering at all.

With ΔW = Q(W) − W and d the importance (mean squared activation of an input channel):
    plain     Σ ΔW² / Σ W²
    weighted  Σ d ΔW² / Σ d W²      the error of the layer's output, relative to its power, for uncorrelated inputs
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.packed_cache import Levels
from bitwright.compress.models.source import Floats
from bitwright.progress import Progress
from bitwright.spaces import Format, Space, Unit


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
            advance(unit.n_weights)
    return Distortion(plain, weighted)


def _can_encode(unit: Unit, form: Format, levels: Levels) -> bool:
    return not form.needs_importance or all(levels.knows_importance(tensor) for tensor in unit.tensors)


def _errors(unit: Unit, form: Format, levels: Levels) -> tuple[float, float]:
    """Both relative errors of one unit, over all of its tensors."""
    sums = np.zeros(4)
    for tensor in unit.tensors:
        original = levels.source.read(tensor)
        change = levels.weights(tensor, form) - original
        channels = levels.importance_of(tensor)
        sums += np.concatenate([_power(change, channels), _power(original, channels)])
    plain, weighted = np.divide(sums[:2], sums[2:], out=np.zeros(2), where=sums[2:] > 0)
    return float(plain), float(weighted)


def _power(weights: Floats, channels: Floats) -> NDArray[np.float64]:
    """Σ w² and Σ d w² of `weights` `(n_rows, n_columns)` with `channels` `(n_groups, n_columns)`: shape `(2,)`."""
    columns = np.einsum("grc,grc->gc", *2 * [weights.reshape(max(len(channels), 1), -1, weights.shape[1])]).astype(np.float64)
    plain = columns.sum()
    return np.array([plain, (columns * channels).sum() if len(channels) else plain])
