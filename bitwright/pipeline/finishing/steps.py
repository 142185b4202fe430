"""Steps by their names on the command line: those before quantization move channels, those after it train stored numbers or calibrate routers."""

from collections.abc import Iterable

from bitwright.errors import UserError
from bitwright.pipeline.finishing.healing import HEAL, Healing, healing_named
from bitwright.pipeline.finishing.moved_channels import MOVING_STEPS, MovingStep
from bitwright.pipeline.finishing.router_calibration import CALIBRATION, RouterCalibration, calibration_named


def step_named(words: str) -> RouterCalibration | MovingStep | Healing:
    """Parse a step with its optional field: `scale`, `router-calibration:ridge=32`, `heal:tokens=8192`.

    Raises:
        UserError: there is no such step or field, or the field is not above zero.
    """
    if words in MOVING_STEPS:
        return MOVING_STEPS[words]
    name = words.partition(":")[0]
    if name == CALIBRATION:
        return calibration_named(words)
    if name == HEAL:
        return healing_named(words)
    raise UserError(
        f"A step must be {', '.join(MOVING_STEPS)}, {HEAL}, {HEAL}:tokens=8192, or {CALIBRATION}:ridge=32; '{words}' is not: correct its spelling."
    )


def moving(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the steps before quantization."""
    return tuple(words for words in steps if words in MOVING_STEPS)


def later(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the steps after quantization."""
    return tuple(words for words in steps if words not in MOVING_STEPS)


def calibrating(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the steps that calibrate routers."""
    return tuple(words for words in later(steps) if words.partition(":")[0] == CALIBRATION)


def healing(steps: Iterable[str]) -> Healing | None:
    """Return the step that trains what is stored beside codes, None if there is none."""
    return next((healing_named(words) for words in steps if words.partition(":")[0] == HEAL), None)


def require_once(steps: Iterable[str]) -> None:
    """Raise if a step that moves channels is named twice, or healing is.

    Raises:
        UserError: see above.
    """
    names = [words.partition(":")[0] for words in steps]
    twice = next((name for name in (*MOVING_STEPS, HEAL) if names.count(name) > 1), "")
    if twice:
        raise UserError(f"A step other than {CALIBRATION} is made once; {twice} is named twice: leave one out.")
