"""Input of every proxy: a model, its tensors in every format, and calibration text."""

from dataclasses import dataclass

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Store, Tokens
from bitwright.progress import Progress
from bitwright.spaces import Space


@dataclass(frozen=True, eq=False)
class Subject:
    """Model and its packed tensors `levels`, the `space` whose pairs are priced, calibration `tokens`, and the `seed` of random draws.

    Long computations report to `progress`, and cache finished parts in `store`.
    """

    model: Model
    levels: PackedTensors
    space: Space
    tokens: Tokens
    seed: int
    store: Store
    progress: Progress
