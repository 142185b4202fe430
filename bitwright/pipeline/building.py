"""From a plan to a file: every tensor quantized anew with the very codec and importance that the plan was measured with."""

from collections.abc import Callable
from itertools import filterfalse
from pathlib import Path

import numpy as np

from bitwright.compress import (
    FLOAT_TYPES,
    Bytes,
    Floats,
    KeptCodes,
    Levels,
    Source,
    cut_importance,
    describe_differences,
    kept_weights,
    needs_moments,
    open_source,
    read_imatrix,
)
from bitwright.engines import MODEL, Engine, Recipe, engine_named, engine_names
from bitwright.errors import BrokenPromiseError, PlanError
from bitwright.pipeline.outputs import require_place
from bitwright.pipeline.results import read_by_plan, require_results
from bitwright.progress import Progress, Silent
from bitwright.spaces import ABSENT, DROP, Kept, Plan, Target, Tensor, expert_of
from bitwright.written_files import digest, withdraw


def build(plan: Plan, out: Path, *, progress: Progress | None = None) -> None:
    """Write the plan's file to `out`, under a temporary name until it is whole and checked.

    Raises:
        PlanError: the plan is for another model or target, names a tensor that does not exist or a format its rows do not allow, or its
            importance matrix, or the codes or weights that it keeps, are not those it was made with.
        OutputError: the file cannot be written, or would replace something that the plan is built from or that Bitwright did not write.
        BrokenPromiseError: the finished file has another size than the plan says.
    """
    engine = _engine_of(plan)
    require_place(out)
    require_results({out: MODEL}, read_by_plan(plan))
    whole = open_source(plan.model.source)
    source, container = engine.held(whole), engine.container(plan.model.source)
    require_fit(plan, source)
    bytes_of, changed = packing(plan, engine.target, whole), changed_by_steps(plan, source)
    n_weights = sum(tensor.n_weights for tensor in source.tensors if tensor.name in plan.formats)
    with (progress or Silent()).stage(f"Writing {out.name}", n_weights) as advance:

        def packed(tensor: Tensor) -> Bytes:
            advance(tensor.n_weights)
            return bytes_of(tensor)

        container.write(out, Recipe(source, plan.formats, changed), packed)
    found = container.size_bytes(out)
    if found != plan.size_bytes:
        withdraw(out)
        raise BrokenPromiseError(
            f"The model must have the {plan.size_bytes:,} bytes of its plan; it had {found:,} and was removed: please report this."
        )


def packing(plan: Plan, target: Target, whole: Source) -> Callable[[Tensor], Bytes]:
    """What gives the bytes of each tensor of a plan for the model `whole`: made anew, or those that were kept.

    Raises:
        PlanError: the rounding is none of the target's, or what the bytes are made of is not what the plan was made with.
    """
    engine, rounding = engine_named(target.name), plan.rounding
    source = engine.held(whole)
    if isinstance(rounding, Kept):
        codes = KeptCodes(Path(rounding.path), rounding.sha256)

        def of(tensor: Tensor) -> Bytes:
            form = plan.formats[tensor.name]
            if form in ABSENT:
                return np.empty(0, dtype=np.uint8)
            return source.stored(tensor) if form == tensor.stored else codes.packed(tensor.name, form)

        return of
    if needs_moments(rounding.shipped) or rounding.shipped not in engine.codecs:
        raise PlanError(
            f"Codes for {target.name} can be made anew by {', '.join(filterfalse(needs_moments, engine.codecs))}; this plan says "
            f"'{rounding.shipped}': make the plan again."
        )
    importance = read_imatrix(_importance_path(plan), whole.tensors)
    codec = engine.codec(rounding.shipped, {})
    levels = Levels(Path(), source, codec, cut_importance(importance, whole.tensors, target.cut))
    return lambda tensor: levels.encode(tensor, target.format(plan.formats[tensor.name]))


def changed_by_steps(plan: Plan, source: Source) -> dict[str, Floats]:
    """The weights `(n_rows, n_columns)` that the steps of a plan give to tensors of `source`, which are stored as floats.

    Raises:
        PlanError: they are not there, are not those that were measured, or are of tensors that this model has not.
    """
    tensors, found = {tensor.name: tensor for tensor in source.tensors}, dict[str, Floats]()
    for step in plan.steps:
        for name, weights in kept_weights(Path(step.path), step.sha256).items():
            if name in plan.formats or name not in tensors or tensors[name].shape != weights.shape or tensors[name].stored not in FLOAT_TYPES:
                raise PlanError(
                    f"Steps may change only what is kept as floats and has no format; {step.step} has weights of {name}, which the model "
                    f"{source.name} does not hold so: make the plan again."
                )
            found[name] = weights
    return found


def target_of(plan: Plan) -> Target:
    """The target that the plan is for.

    Raises:
        PlanError: there is no such target, or it is no engine's.
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
    """Refuse a plan that is not for this model, whose `source` has its tensors as the plan's target holds them.

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


def require_same_model(plan: Plan, source: Source) -> None:
    """Refuse a plan that was made for another model than that of `source`: other weights, or others of the settings that it computes with.

    Raises:
        PlanError: see above.
    """
    differs = describe_differences(plan.model.settings, source)
    if plan.model.fingerprint != source.fingerprint:
        differs = f"{source.name} has fingerprint {source.fingerprint[:12]} and the plan wants {plan.model.fingerprint[:12]}"
    if differs:
        raise PlanError(f"A plan holds only for the model it was made for; {differs}: give the original model, or make a plan for this one.")


def _require_experts(plan: Plan, source: Source) -> None:
    """Every layer keeps as many experts as a token is sent to."""
    n_used = next((int(entry.value) for entry in source.metadata if entry.key.endswith(".expert_used_count")), 0)
    gone = {expert_of(name) for name, form in plan.formats.items() if form == DROP.name}
    experts = {expert_of(tensor.name) for tensor in source.tensors if expert_of(tensor.name)[1] >= 0}
    for layer in sorted({layer for layer, _ in gone}):
        n_left = sum(of_layer == layer for of_layer, _ in experts - gone)
        if n_left < n_used:
            raise PlanError(
                f"A plan must leave every layer the {n_used} experts that a token is sent to; layer {layer} has {n_left} left: drop fewer there."
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
