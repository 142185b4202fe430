"""What every proxy looks at: a model, its tensors in every format, and text."""

from dataclasses import dataclass

from bitwright.compress import Levels, Model
from bitwright.objectives import Store, Tokens
from bitwright.progress import Progress
from bitwright.spaces import Space


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its `levels`, the `space` whose pairs are priced, calibration `tokens`, and a `seed` for what is drawn.

    Work that takes more than a moment goes through `progress`, and its finished parts into `store`, from which they are taken the next time.
    """

    model: Model
    levels: Levels
    space: Space
    tokens: Tokens
    seed: int
    store: Store
    progress: Progress
