"""Model of a plan with a structure: its heads and channels in the order that the plan was measured with, and what is written of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bitwright.compress import (
    Bytes,
    Floats,
    Model,
    OrderedSource,
    PartOrder,
    RefittedSource,
    Source,
    ordered_model,
    part_order,
    read_pinned_weights,
    whole_structure,
)
from bitwright.engines import Engine
from bitwright.errors import PlanError, UserError
from bitwright.spaces import MovedChannels, Plan, PlannedStructure, Tensor


@dataclass(frozen=True)
class Written:
    """Source of what is written of a plan, its formats (tensor → format), and the function from a tensor to its packed bytes."""

    source: Source
    formats: Mapping[str, str]
    packed: Callable[[Tensor], Bytes]


def order_of(planned: PlannedStructure, source: Source, importance: Mapping[str, Floats]) -> PartOrder:
    """Return the order of heads and channels of a plan, for the `source` as the engine holds it.

    Raises:
        PlanError: it is not the order that the plan was measured with, or the file of its channels' scores is missing or was changed.
    """
    scores = read_pinned_weights(Path(planned.scores.path), planned.scores.sha256) if planned.scores is not None else {}
    order = part_order(source, importance, planned.ordered, scores)
    if order.digest != planned.order:
        raise PlanError(
            f"A plan with a structure needs the order of heads and channels that it was measured with; that of {source.name} differs: make the plan "
            "again."
        )
    return order


def ordered_source(plan: Plan, source: Source, importance: Mapping[str, Floats]) -> Source:
    """Return the source with its heads and channels in the order of a plan, where that has one.

    Raises:
        PlanError: see `order_of`.
    """
    return source if plan.structure is None else OrderedSource(source, order_of(plan.structure, source, importance))


def compensated_source(planned: PlannedStructure, source: Source) -> Source:
    """Return the `source` in a plan's order with the refitted matrices of its compensation, where it has one.

    Raises:
        PlanError: the file of matrices is missing or was changed, or has one that this model does not have.
    """
    if planned.compensation is None:
        return source
    made = read_pinned_weights(Path(planned.compensation.path), planned.compensation.sha256)
    shapes = {tensor.name: tensor.shape for tensor in source.tensors}
    foreign = next((name for name, matrix in made.items() if shapes.get(name) != matrix.shape), "")
    if foreign:
        raise PlanError(f"A compensation may have only matrices of its model; {foreign} is none of those in {source.name}: make the plan again.")
    return RefittedSource(source, made)


def model_of(plan: Plan, model: Model, importance: Mapping[str, Floats]) -> Model:
    """Return the model with its heads and channels in the order of a plan, where that has one.

    Raises:
        PlanError: see `order_of`.
    """
    return model if plan.structure is None else ordered_model(model, order_of(plan.structure, model.source, importance))


def require_structure(plan: Plan, engine: Engine, source: Source) -> None:
    """Raise if the structure of a plan cannot be made of the model of `source` with its formats, or be loaded by the engine.

    Raises:
        PlanError: see above.
    """
    if plan.structure is None:
        return
    moving = next((step.step for step in plan.steps if isinstance(step, MovedChannels)), "")
    if moving:
        raise PlanError(f"A plan has parts taken away or channels moved, not both; this one has a structure and the step {moving}: remove one.")
    try:
        engine.require_structure(source, ())
        kept = plan.structure.kept
        engine.narrowed(source, kept).require_whole_blocks(plan.formats)
        if kept.dropped(whole_structure(source)):
            engine.require_structure(source, ["experts"])
    except UserError as error:
        raise PlanError(str(error)) from error


def written(plan: Plan, engine: Engine, source: Source, packed: Callable[[Tensor], Bytes]) -> Written:
    """Return what is written of a plan; `source` is in the plan's order, and `packed` gives the bytes of its tensors in the plan's formats."""
    if plan.structure is None:
        return Written(source, plan.formats, packed)
    kept = engine.narrowed(source, plan.structure.kept)
    return Written(kept, kept.renamed(plan.formats), lambda tensor: kept.packed(tensor, packed, plan.formats))
