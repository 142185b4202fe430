"""Steps after quantization, named by `--step`. A plan may have steps whatever its formats are.

A step changes the weights of some unquantized tensors. It runs for every candidate before measuring, so the measured model is the one that ships. The
changed weights depend on calibration text and cannot be reproduced, so the run saves them and the plan names their file by path and SHA-256.
"""

from dataclasses import dataclass
from pathlib import Path

from bitwright.compress import Floats, Model, Weights
from bitwright.errors import UserError
from bitwright.objectives import Tokens
from bitwright.pipeline.router_calibration import calibrated_routers
from bitwright.progress import Progress
from bitwright.spaces import CalibratedRouters
from bitwright.written_files import digest

RIDGE = 128.0  # tokens; from 1 to 512, only the third digit of the results changes (docs/experts.md)
_CALIBRATION = "router-calibration"


@dataclass(frozen=True)
class RouterCalibration:
    """Router calibration; see `calibrated_routers`. `ridge` is the weight of the penalty towards the old router, in tokens."""

    ridge: float = RIDGE
    name = _CALIBRATION

    @property
    def words(self) -> str:
        """The step with its field, as `--step` takes it."""
        return f"{self.name}:ridge={self.ridge:g}"

    def __call__(self, model: Model, weights: Weights, tokens: Tokens, progress: Progress) -> dict[str, Floats]:
        """Return the changed tensors of a model with `weights`."""
        return calibrated_routers(model, weights, tokens, ridge=self.ridge, progress=progress)

    def planned(self, path: Path) -> CalibratedRouters:
        """Return the plan's record of the step, whose weights are in the file `path`."""
        return CalibratedRouters(ridge=self.ridge, path=str(path.absolute()), sha256=digest(path))


def step_named(words: str) -> RouterCalibration:
    """Parse a step with its optional field: `router-calibration:ridge=32`.

    Raises:
        UserError: there is no such step or field, or the field is not above zero.
    """
    name, _, field = words.partition(":")
    key, _, value = field.partition("=")
    if name != _CALIBRATION or (field and key != "ridge"):
        raise UserError(f"A step must be {_CALIBRATION}, or {_CALIBRATION}:ridge=32; '{words}' is not: correct its spelling.")
    try:
        ridge = float(value) if field else RIDGE
    except ValueError:
        ridge = 0.0
    if not 0 < ridge < float("inf"):
        raise UserError(f"The ridge of {_CALIBRATION} is a number of tokens above 0; '{value}' is not: write {_CALIBRATION}:ridge={RIDGE:g}.")
    return RouterCalibration(ridge)
