"""Steps by their names on the command line: those before quantization move channels, the one after it calibrates routers."""

from collections.abc import Iterable

from bitwright.errors import UserError
from bitwright.pipeline.finishing.moved_channels import MOVING_STEPS, MovingStep
from bitwright.pipeline.finishing.router_calibration import CALIBRATION, RouterCalibration, calibration_named


def step_named(words: str) -> RouterCalibration | MovingStep:
    """Parse a step with its optional field: `scale`, `router-calibration:ridge=32`.

    Raises:
        UserError: there is no such step or field, or the field is not above zero.
    """
    if words in MOVING_STEPS:
        return MOVING_STEPS[words]
    if words.partition(":")[0] == CALIBRATION:
        return calibration_named(words)
    raise UserError(f"A step must be {', '.join(MOVING_STEPS)}, or {CALIBRATION}:ridge=32; '{words}' is not: correct its spelling.")


def moving(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the steps before quantization."""
    return tuple(words for words in steps if words in MOVING_STEPS)


def calibrating(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the steps after quantization."""
    return tuple(words for words in steps if words not in MOVING_STEPS)


def require_once(steps: Iterable[str]) -> None:
    """Raise if a step that moves channels is named twice.

    Raises:
        UserError: see above.
    """
    names = moving(steps)
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise UserError(f"A step that moves channels is made once; {twice} is named twice: leave one out.")
