"""Pruned matrices of the tensor that was pruned last, so that formats with one pattern over several bits share one search for its mask."""

import hashlib
from collections.abc import Callable

from bitwright.compress.codecs.rounding.pruning import Pruned
from bitwright.compress.models.source import Floats
from bitwright.spaces import Pattern

_LARGEST_BYTES = 1 << 26  # of what is kept in memory


class RecentMasks:
    """Pruned matrices by pattern, of one matrix of weights at a time; larger ones than 64 MiB in all are not kept."""

    def __init__(self) -> None:
        self._of, self._kept = b"", dict[Pattern, Pruned]()

    def __reduce__(self) -> tuple[type["RecentMasks"], tuple[()]]:
        """Be sent to another process without what is kept."""
        return RecentMasks, ()

    def found(self, tensor: tuple[str, int], weights: Floats, importance: Floats, pattern: Pattern, prune: Callable[[], Pruned]) -> Pruned:
        """Return what `prune` returned for the same pattern, weights `(n_rows, n_columns)`, importance `(n_columns,)` and tensor, or call it."""
        of = hashlib.blake2b(repr(tensor).encode() + importance.tobytes(), digest_size=16)
        of.update(weights.data)
        if of.digest() != self._of:
            self._of, self._kept = of.digest(), {}
        if pattern in self._kept:
            return self._kept[pattern]
        pruned = prune()
        if sum(each.n_bytes for each in (pruned, *self._kept.values())) <= _LARGEST_BYTES:
            self._kept[pattern] = pruned
        return pruned
