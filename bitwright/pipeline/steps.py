"""What is done to a model after its formats are chosen, by the words of `--step`: whatever a plan's formats are, it may name steps.

A step gives some tensors that no format is decided for other weights. It runs for every candidate before that is measured, so what is measured
is what ships; its weights are kept in the run, and a plan names their file by path and SHA-256, as with codes that a text had a part in.
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

RIDGE = 128.0  # tokens; from 1 to 512 nothing changes but the third digit (docs/experts.md)
_CALIBRATION = "router-calibration"


@dataclass(frozen=True)
class RouterCalibration:
    """Routers that choose as before; see `calibrated_routers`. `ridge` is how many tokens speak for the old one."""

    ridge: float = RIDGE
    name = _CALIBRATION

    @property
    def words(self) -> str:
        """The step with its field."""
        return f"{self.name}:ridge={self.ridge:g}"

    def __call__(self, model: Model, weights: Weights, tokens: Tokens, progress: Progress) -> dict[str, Floats]:
        """The tensors that it changes in a model that gets `weights`."""
        return calibrated_routers(model, weights, tokens, ridge=self.ridge, progress=progress)

    def planned(self, path: Path) -> CalibratedRouters:
        """What a plan says of it, where its weights lie in the file `path`."""
        return CalibratedRouters(ridge=self.ridge, path=str(path.absolute()), sha256=digest(path))


def step_named(words: str) -> RouterCalibration:
    """The step that `words` name, with its field where they say one: `router-calibration:ridge=32`.

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
