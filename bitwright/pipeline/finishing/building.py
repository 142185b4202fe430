"""Build a plan's file: requantize every tensor with the codec and importance matrix that the plan was measured with, or read its saved codes."""

import tempfile
from collections.abc import Callable
from itertools import filterfalse
from pathlib import Path

import numpy as np

from bitwright.compress import (
    FLOAT_TYPES,
    Bytes,
    Floats,
    PackedTensors,
    PinnedCodes,
    Source,
    cut_importance,
    describe_differences,
    named_parts,
    needs_moments,
    open_source,
    ordered_importance,
    parts_beside,
    read_imatrix,
    read_pinned_weights,
)
from bitwright.engines import MODEL, Engine, Recipe, engine_named, engine_names, moved_source, split_engine
from bitwright.errors import BrokenPromiseError, OutputError, PlanError
from bitwright.pipeline.finishing.planned_structure import Written, compensated_source, order_of, ordered_source, require_structure, written
from bitwright.pipeline.results import plan_inputs, require_place, require_results
from bitwright.progress import Progress, Silent
from bitwright.spaces import ABSENT, DROP, CalibratedRouters, Kept, Plan, Target, Tensor, expert_of
from bitwright.written_files import digest, withdraw


def build(plan: Plan, out: Path, *, split_max_bytes: int = 0, progress: Progress | None = None) -> Path:
    """Write the plan's file to `out`, under a temporary name until it is complete and checked, and return the path to load it by.

    It is written as parts of at most `split_max_bytes`, beside `out`, where that or the plan's own is not 0.

    Raises:
        UserError: the target's engine does not load parts, or they would be too small.
        PlanError: the plan is for another model or target, names a tensor that does not exist or a format its rows do not allow, or its
            importance matrix, saved codes or saved weights are not those it was made with.
        OutputError: the file cannot be written, or would replace something that the plan is built from or that Bitwright did not write.
        BrokenPromiseError: the finished file has another size than the plan says.
    """
    _engine_of(plan)
    engine = split_engine(plan.target, split_max_bytes or plan.split_max_bytes)
    require_place(out)
    _require_whole(out)
    require_results(dict.fromkeys((out, *parts_beside(out)), MODEL), plan_inputs(plan))
    whole = open_source(plan.model.source, engine.view)
    source, container = engine.held(whole), engine.container(plan.model.source)
    require_fit(plan, source)
    kept = written(plan, engine, source_of(plan, whole), packing(plan, engine.target, whole))
    container = container if plan.structure is None else container.keeping(plan.structure.kept)
    n_weights = sum(tensor.n_weights for tensor in kept.source.tensors if tensor.name in kept.formats)
    with (progress or Silent()).stage(f"Writing {out.name}", n_weights) as advance:

        def packed(tensor: Tensor) -> Bytes:
            advance(tensor.n_weights)
            return kept.packed(tensor)

        first = container.write(out, Recipe(kept.source, kept.formats, changed_by_steps(plan, source)), packed)
    found, promised = container.size_bytes(first), promised_bytes(plan, kept, engine)
    if found != promised:
        for file in container.files(first):
            withdraw(file)
        raise BrokenPromiseError(f"The model must have the {promised:,} bytes of its plan; it had {found:,} and was removed: please report this.")
    return first


def _require_whole(out: Path) -> None:
    if named_parts(out) != [out]:
        raise OutputError(
            f"A model must be written to a name of its own; {out.name} is that of a part of a split one: leave the numbers out, and name the size of "
            "parts with --split-max-size."
        )


def files_of(plan: Plan, path: Path) -> list[Path]:
    """Return the files of the built model that is loaded by `path`: itself, or the parts of a split one."""
    return engine_named(plan.target).container(plan.model.source).files(path)


def promised_bytes(plan: Plan, kept: Written, engine: Engine) -> int:
    """Return the bytes of a plan's file as `engine` writes it: those of the plan, unless it is cut otherwise than planned."""
    planned = split_engine(plan.target, plan.split_max_bytes)
    if planned == engine:
        return plan.size_bytes
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        fixed = [of.container(plan.model.source).fixed_bytes(kept.source, kept.formats, Path(scratch)) for of in (planned, engine)]
    return plan.size_bytes - fixed[0] + fixed[1]


def packing(plan: Plan, target: Target, whole: Source) -> Callable[[Tensor], Bytes]:
    """Return the function that gives each tensor's packed bytes, for a plan of the model `whole`: requantized, or read from saved codes.

    Raises:
        PlanError: the target does not have the rounding, or the importance matrix or saved codes are not those the plan was made with.
    """
    engine, rounding = engine_named(target.name), plan.rounding
    source, moved = source_of(plan, whole), moved_source(plan, engine.held(whole))
    if isinstance(rounding, Kept):
        codes = PinnedCodes(Path(rounding.path), rounding.sha256)

        def saved(tensor: Tensor) -> Bytes:
            form = plan.formats[tensor.name]
            if form in ABSENT:
                return np.empty(0, dtype=np.uint8)
            return source.stored(tensor) if form == tensor.stored else codes.packed(tensor.name, form)

        return saved
    if needs_moments(rounding.shipped) or rounding.shipped not in engine.codecs:
        raise PlanError(
            f"A model for {target.name} can be requantized with {', '.join(filterfalse(needs_moments, engine.codecs))}; this plan says "
            f"'{rounding.shipped}': make the plan again."
        )
    importance = importance_of(plan, whole)
    codec = engine.codec(rounding.shipped, {})
    importance = cut_importance(importance, whole.tensors, target.cut)
    if plan.structure is not None:
        importance = ordered_importance(importance, order_of(plan.structure, engine.held(whole), importance))
    levels = PackedTensors(Path(), source, codec, importance if moved is None else moved.squares(importance))
    return lambda tensor: levels.encode(tensor, target.format(plan.formats[tensor.name]))


def source_of(plan: Plan, whole: Source) -> Source:
    """Return the tensors of the model `whole` as the plan's engine holds them, with heads and channels in the plan's order and refitted matrices, or
    moved by its steps.

    Raises:
        PlanError: the importance matrix or the refitted matrices are not the plan's, the order is another one, or a file of a step is not the one
            that was measured.
    """
    held = engine_named(plan.target).held(whole)
    moved = moved_source(plan, held)
    if moved is not None:
        return moved
    return held if plan.structure is None else compensated_source(plan.structure, ordered_source(plan, held, importance_of(plan, whole)))


def importance_of(plan: Plan, whole: Source) -> dict[str, Floats]:
    """Read the importance matrix of a plan, for the model `whole`.

    Raises:
        PlanError: it is missing, or has changed since.
    """
    return read_imatrix(_importance_path(plan), whole.tensors)


def changed_by_steps(plan: Plan, source: Source) -> dict[str, Floats]:
    """Return the weights `(n_rows, n_columns)` that a plan's steps changed, by tensor of `source`; these tensors are stored as floats.

    Raises:
        PlanError: a file of weights is missing or changed since it was measured, or has a tensor that this model does not have.
    """
    tensors, found = {tensor.name: tensor for tensor in source.tensors}, dict[str, Floats]()
    for step in (step for step in plan.steps if isinstance(step, CalibratedRouters)):
        for name, weights in read_pinned_weights(Path(step.path), step.sha256).items():
            if name in plan.formats or name not in tensors or tensors[name].shape != weights.shape or tensors[name].stored not in FLOAT_TYPES:
                raise PlanError(
                    f"Steps may change only tensors that are stored as floats and have no format; {step.step} has weights of {name}, which is none "
                    f"of those in {source.name}: make the plan again."
                )
            found[name] = weights
    return found


def target_of(plan: Plan) -> Target:
    """Return the plan's target.

    Raises:
        PlanError: there is no such target, or no engine has it.
    """
    return _engine_of(plan).target


def _engine_of(plan: Plan) -> Engine:
    if plan.target not in engine_names():
        raise PlanError(
            f"A plan's target must be one of {', '.join(engine_names())}; this one is for '{plan.target}': make a plan for a target that exists."
        )
    engine = engine_named(plan.target)
    engine.require_writable()
    return engine


def require_fit(plan: Plan, source: Source) -> None:
    """Raise if a plan does not fit the model of `source`, whose tensors are laid out as the plan's target holds them.

    Raises:
        PlanError: see `build`.
    """
    require_same_model(plan, source)
    target, names = target_of(plan), {tensor.name for tensor in source.tensors}
    foreign = next((name for name in plan.formats if name not in names), "")
    if foreign:
        raise PlanError(f"A plan may name only tensors of its model; '{foreign}' is not one of {source.name}: remove it from the plan.")
    broken = target.rule_violations(source.tensors, plan.formats)
    if broken:
        raise PlanError(
            f"A plan must keep the rules of {target.name} {target.version}, and {broken[0].rule}; {broken[0].tensor} has {broken[0].fault}: correct "
            "its spelling, or give it another format."
        )
    _require_experts(plan, source)
    require_structure(plan, _engine_of(plan), source)


def require_same_model(plan: Plan, source: Source) -> None:
    """Raise if a plan was made for another model than that of `source`: for other weights, or other settings of the computation.

    Raises:
        PlanError: see above.
    """
    differs = describe_differences(plan.model.settings, source)
    if plan.model.fingerprint != source.fingerprint:
        differs = f"{source.name} has fingerprint {source.fingerprint[:12]} and the plan wants {plan.model.fingerprint[:12]}"
    if differs:
        raise PlanError(f"A plan holds only for the model it was made for; {differs}: give the original model, or make a plan for this one.")


def _require_experts(plan: Plan, source: Source) -> None:
    """Raise if a layer keeps fewer experts than a token is routed to."""
    n_used = source.n_experts_used
    gone = {expert_of(name) for name, form in plan.formats.items() if form == DROP.name}
    experts = {expert_of(tensor.name) for tensor in source.tensors if expert_of(tensor.name)[1] >= 0}
    for layer in sorted({layer for layer, _ in gone}):
        n_left = sum(of_layer == layer for of_layer, _ in experts - gone)
        if n_left < n_used:
            raise PlanError(
                f"A plan must leave every layer the {n_used} experts that a token is routed to; layer {layer} has {n_left} left: drop fewer there."
            )


def _importance_path(plan: Plan) -> Path:
    path = Path(plan.importance.path)
    if not path.is_file():
        raise PlanError(
            f"A plan needs the importance matrix it was measured with; {path} is not there: put it back, or correct its path in the plan."
        )
    if digest(path) != plan.importance.sha256:
        raise PlanError(f"A plan needs the importance matrix it was measured with; {path} has changed since: make the plan again.")
    return path
