"""A plan in the words of another tool."""

from dataclasses import dataclass

from bitwright.compress import load
from bitwright.dialects import dialect_named, modules_of
from bitwright.errors import PlanError
from bitwright.pipeline.building import require_same_model
from bitwright.spaces import Plan


@dataclass(frozen=True)
class Exported:
    """The text of a plan, and in one line what its measured divergence says about what the tool will make of it."""

    text: str
    note: str


def export(plan: Plan, to: str) -> Exported:
    """`plan` in the dialect `to`; loads the plan's model for the names of its modules.

    Raises:
        UserError: no such dialect or model, a plan for another model, or a format or step that the dialect cannot say.
    """
    dialect, model = dialect_named(to), load(plan.model.source)
    require_same_model(plan, model.source)
    if plan.steps:
        raise PlanError(f"{to} knows formats and nothing that follows them; this plan goes on with {plan.steps[0].step}: plan without --step.")
    text = dialect.write(plan.formats, modules_of(model.tensors, model.pieces))
    if dialect.same_codes:
        return Exported(text, f"{to} makes the codes that were measured where it is given the plan's importance matrix ({plan.importance.path}).")
    found = f"{plan.divergence.nats_per_token:.4g} nats/token"
    return Exported(text, f"{to} quantizes anew by a rule of its own: the plan's divergence ({found}) does not carry over, so measure its model.")
