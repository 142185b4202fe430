from pathlib import Path

import numpy as np

from bitwright.compress import Levels, Model
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.gradients.output_change import output_change_table
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.predictors.subjects import opened


class TestOutputChange(TableContract):
    """Its value is compared with its definition in `test_sweep.py`."""

    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return output_change_table(subject)
