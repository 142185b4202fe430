"""Steps after quantization by the words of `--step`: router calibration and healing, each in a file of its own."""

from bitwright.errors import UserError
from bitwright.pipeline.finishing.healing import Healing, healing_of
from bitwright.pipeline.finishing.router_calibration import RIDGE, RouterCalibration, calibration_of

Step = RouterCalibration | Healing


def step_named(words: str) -> Step:
    """Parse a step with its optional field: `router-calibration:ridge=32`, `heal:tokens=8192`.

    Raises:
        UserError: there is no such step or field, or the field is not above zero.
    """
    name, _, field = words.partition(":")
    if name == RouterCalibration.name:
        return calibration_of(field)
    if name == Healing.name:
        return healing_of(field)
    raise UserError(
        f"A step must be {RouterCalibration.name} or {Healing.name}, or one with its field, {RouterCalibration.name}:ridge={RIDGE / 4:g} or "
        f"{Healing.name}:tokens=8192; '{words}' is not: correct its spelling."
    )


def require_healable(steps: tuple[str, ...], *, target: str, sampled: bool) -> None:
    """Require what healing needs: packed matrices of the target `native`, and a text that is not `sampled` from the model alone.

    Raises:
        UserError: there is none, or healing is named twice.
    """
    healing = [words for words in steps if isinstance(step_named(words), Healing)]
    if not healing:
        return
    if len(healing) > 1:
        raise UserError(f"A model is healed once; {' and '.join(healing)} are {len(healing)} steps: leave all but one out.")
    if not target.startswith("native"):
        raise UserError(f"The step {Healing.name} trains what the target native stores beside codes; '{target}' is another: leave it out.")
    if sampled:
        raise UserError(f"The step {Healing.name} trains on text, and none is given but the model's own: name a --calibration, or leave it out.")


def healing_among(steps: tuple[str, ...]) -> Healing | None:
    """Return the healing among steps, None if there is none."""
    return next((step for words in steps if isinstance(step := step_named(words), Healing)), None)
