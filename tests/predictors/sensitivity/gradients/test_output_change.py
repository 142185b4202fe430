from pathlib import Path

import numpy as np

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.gradients.output_change import output_change_table
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.predictors.subjects import opened


class TestOutputChange(TableContract):
    """Contract of the proxy; its value is compared with its definition in `test_sweep.py`."""

    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return output_change_table(subject)
