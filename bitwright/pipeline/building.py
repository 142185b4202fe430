"""From a plan to a file: every tensor quantized anew with the very codec and importance that the plan was measured with."""

import hashlib
from pathlib import Path

from bitwright.compress import Bytes, IntegerCodec, Levels, Recipe, Source, open_source, read_imatrix, write_gguf
from bitwright.errors import BrokenPromiseError, PlanError
from bitwright.progress import Progress, Silent
from bitwright.spaces import LLAMA_CPP, TARGETS, Plan, Tensor


def build(plan: Plan, out: Path, *, progress: Progress | None = None) -> None:
    """Write the plan's file to `out`, under a temporary name until it is whole and checked.

    Raises:
        PlanError: the plan is for another model or target, names a tensor that does not exist or a format its rows do not allow, or its
            importance matrix is not the one it was made with.
        OutputError: the file cannot be written.
        BrokenPromiseError: the finished file has another size than the plan says.
    """
    source = open_source(plan.model.source)
    require_fit(plan, source)
    imatrix = _importance_path(plan)
    levels = Levels(out.parent, source, IntegerCodec(), read_imatrix(imatrix, source.tensors))
    target = TARGETS[plan.target]
    n_weights = sum(tensor.n_weights for tensor in source.tensors if tensor.name in plan.formats)
    with (progress or Silent()).stage(f"Writing {out.name}", n_weights) as advance:

        def packed(tensor: Tensor) -> Bytes:
            advance(tensor.n_weights)
            return levels.encode(tensor, target.format(plan.formats[tensor.name]))

        write_gguf(out, Recipe(source, plan.formats), packed)
    found = out.stat().st_size
    if found != plan.size_bytes:
        out.unlink()
        raise BrokenPromiseError(
            f"The file must have the {plan.size_bytes:,} bytes of its plan; it had {found:,} and was removed: please report this."
        )


def require_fit(plan: Plan, source: Source) -> None:
    """Refuse a plan that is not for this model.

    Raises:
        PlanError: see `build`.
    """
    if plan.target not in TARGETS:
        raise PlanError(
            f"A plan's target must be one of {', '.join(TARGETS)}; this one is for '{plan.target}': make a plan for a target that exists."
        )
    if plan.model.fingerprint != source.fingerprint:
        raise PlanError(
            f"A plan holds only for the model it was made for; {source.name} has fingerprint {source.fingerprint[:12]} and the plan wants "
            f"{plan.model.fingerprint[:12]}: give the original model, or make a plan for this one."
        )
    require_container(plan.target)
    target, tensors = TARGETS[plan.target], {tensor.name: tensor for tensor in source.tensors}
    for name, form in plan.formats.items():
        if name not in tensors:
            raise PlanError(f"A plan may name only tensors of its model; '{name}' is not one of {source.name}: remove it from the plan.")
        if form not in {known.name for known in target.formats}:
            raise PlanError(f"A plan may name only formats of {target.name}; '{form}' of {name} is not one: correct its spelling.")
        if not target.format(form).fits(tensors[name].shape):
            raise PlanError(
                f"A plan may name only formats that a tensor's rows allow; {name} has rows of {tensors[name].shape[-1]}, which {form} cannot store: "
                "give this tensor another format."
            )


def require_container(target: str) -> None:
    """Refuse a target for which no file can be written.

    Raises:
        PlanError: the target is no engine's.
    """
    if target != LLAMA_CPP.name:
        raise PlanError(
            f"A file is written for an engine that loads it; '{target}' is no engine's, but for comparing methods: use `bitwright search` and "
            f"`bitwright plan` with it, or --target {LLAMA_CPP.name}."
        )


def _importance_path(plan: Plan) -> Path:
    path = Path(plan.importance.path)
    if not path.is_file():
        raise PlanError(
            f"A plan needs the importance matrix it was measured with; {path} is not there: put it back, or correct its path in the plan."
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != plan.importance.sha256:
        raise PlanError(f"A plan needs the importance matrix it was measured with; {path} has changed since: make the plan again.")
    return path
