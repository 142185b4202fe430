"""A plan in the words of another tool."""

from bitwright.compress import load
from bitwright.dialects import dialect_named, module_names
from bitwright.errors import PlanError
from bitwright.spaces import Plan


def export(plan: Plan, to: str) -> str:
    """The text of `plan` in the dialect `to`; loads the plan's model for the names of its modules.

    Raises:
        UserError: no such dialect or model, a plan for another model, or a format that the dialect cannot say.
    """
    dialect, model = dialect_named(to), load(plan.model.source)
    if model.source.fingerprint != plan.model.fingerprint:
        raise PlanError(f"A plan holds only for the model it was made for; {model.source.name} has changed since: make a plan for this one.")
    return dialect.write(plan.formats, module_names(model.pieces))
