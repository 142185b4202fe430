"""Codec of formats with fewer weights: those that the rounding method keeps, packed as a row of their own, and their positions."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from bitwright.compress.codecs.codec import Codec, require_quantizable
from bitwright.compress.codecs.expansion import expanded
from bitwright.compress.codecs.integers import grid_of, packed_rows
from bitwright.compress.codecs.positions import packed_positions
from bitwright.compress.codecs.rounding.pruning import Pruned
from bitwright.compress.codecs.rounding.recent_masks import RecentMasks
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest, known_importance
from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.compress.models.source import Bytes, Floats, require_size
from bitwright.spaces import Format, IntegerFormat, SparseFormat

_WEIGHTS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class SparseCodec(Codec):
    """Codec of `SparseFormat`."""

    rounding: Rounding = field(default_factory=RoundToNearest)
    of: tuple[str, int] = ("", 0)
    recent: RecentMasks = field(default_factory=RecentMasks)

    def for_tensor(self, tensor: str, expert: int = 0) -> "SparseCodec":
        """Return the codec with the rounding of one tensor, or of one expert of a stack."""
        return replace(self, rounding=self.rounding.for_tensor(tensor, expert), of=(tensor, expert))

    def serves(self, form: Format) -> bool:
        """Return whether `form` stores kept weights and their positions."""
        return isinstance(form, SparseFormat)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Prune `weights` `(n_rows, n_columns)` and round what is kept; return kept weights and positions, row by row, as bytes `(n_bytes,)`."""
        form = _sparse(form)
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        weights, pattern = np.ascontiguousarray(weights, dtype=np.float32), form.pattern
        known = known_importance(importance, weights.shape[1])
        pruned = self.recent.found(self.of, weights, known, pattern, lambda: self.rounding.pruned(weights, pattern, importance=known))
        return np.concatenate([self._kept(pruned, form), packed_positions(pruned.mask, form.pattern)], axis=1).reshape(-1)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Return the kept weights at their positions and zeros elsewhere, float32 `(n_rows, n_columns)`."""
        form = _sparse(form)
        require_size(packed, form.size_bytes(shape), form.name)
        weights, stored = np.empty(shape, dtype=np.float32), packed.reshape(shape[0], -1)
        step = max(1, _WEIGHTS_AT_ONCE // shape[1])
        for start in range(0, shape[0], step):
            weights[start : start + step] = expanded(torch.tensor(stored[start : start + step]), form, shape[1]).numpy()
        return weights

    def _kept(self, pruned: Pruned, form: SparseFormat) -> Bytes:
        """Return the bytes of the kept weights, `(n_rows, bytes of a row)`."""
        if isinstance(form.base, IntegerFormat):
            n_kept = pruned.kept.shape[1]
            found = self.rounding.rounded_kept(pruned, grid_of(form.base), group=form.base.group or n_kept)
            return packed_rows(found, slice(None), form.base)
        narrow: Bytes = torch.from_numpy(pruned.kept).to(FLOAT_TYPES[form.base.name]).view(torch.uint8).numpy()
        return narrow


def _sparse(form: Format) -> SparseFormat:
    if not isinstance(form, SparseFormat):
        raise ValueError(f"{form.name} is no format of kept weights")
    return form
