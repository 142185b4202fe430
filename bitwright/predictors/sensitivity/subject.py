"""Input of every proxy: a model, its tensors in every format, and calibration text."""

from dataclasses import dataclass
from functools import cached_property

from bitwright.compress import Model, PackedTensors, RowSample, all_rows
from bitwright.objectives import Store, Tokens
from bitwright.progress import Progress
from bitwright.spaces import Space


@dataclass(frozen=True, eq=False)
class Subject:
    """Model and its packed tensors `levels`, the `space` whose pairs are priced, calibration `tokens`, and the `seed` of random draws.

    Long computations report to `progress`, and cache finished parts in `store`. Sweeps of gradients price formats by the rows of `sample`, by default
    by all of `levels`.
    """

    model: Model
    levels: PackedTensors
    space: Space
    tokens: Tokens
    seed: int
    store: Store
    progress: Progress
    sample: RowSample | None = None

    @cached_property
    def priced_rows(self) -> RowSample:
        """The rows by which sweeps price formats."""
        return self.sample or all_rows(self.levels)
