"""Request for a check: what was built, and what it is compared over."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.progress import Progress
from bitwright.spaces import Plan


@dataclass(frozen=True, eq=False, kw_only=True)
class CheckRequest:
    """Finished model at `path` to compare with its `plan`, over `contexts`, each `(length,)` token ids, and a `prompt` that it continues.

    `model` is the original with its tensors as the engine holds them. `engine_python` passed `Engine.require_python`.
    """

    model: Model
    plan: Plan
    path: Path
    contexts: list[NDArray[np.int64]]
    prompt: str
    engine_python: str
    progress: Progress
