"""Export a plan as a recipe of another tool."""

from dataclasses import dataclass

from bitwright.compress import load
from bitwright.dialects import dialect_named, modules_of
from bitwright.engines import engine_named
from bitwright.errors import PlanError
from bitwright.pipeline.building import require_same_model
from bitwright.spaces import Plan


@dataclass(frozen=True)
class Exported:
    """Text of an exported plan, and a line on whether its measured divergence holds for the tool's model."""

    text: str
    note: str


def export(plan: Plan, to: str) -> Exported:
    """Return `plan` in the dialect `to`; loads the plan's model for the names of its modules.

    Raises:
        UserError: there is no such dialect or model, the plan is for another model, or the dialect cannot express a format or step.
    """
    dialect, model = dialect_named(to), load(plan.model.source, view=engine_named(plan.target).view)
    require_same_model(plan, model.source)
    if plan.steps:
        raise PlanError(f"{to} expresses formats and no steps after them; this plan has the step {plan.steps[0].step}: plan without --step.")
    text = dialect.write(plan.formats, modules_of(model.tensors, model.pieces))
    if dialect.same_codes:
        return Exported(text, f"{to} reproduces the measured codes if it is given the plan's importance matrix ({plan.importance.path}).")
    found = f"{plan.divergence.nats_per_token:.4g} nats/token"
    return Exported(text, f"{to} requantizes with its own rounding: the plan's divergence ({found}) does not carry over, so measure its model.")
