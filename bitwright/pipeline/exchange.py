"""Exchange plans with other tools: import a plan in their file formats and measure it, or export one of ours."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitwright.compress import Outline, load, open_headers
from bitwright.dialects import Dialect, Module, Modules, dialect_named, modules_of, offered_by
from bitwright.engines import ENGINES, engine_named, target_named
from bitwright.errors import PlanError, TextError
from bitwright.pipeline.before_loading import named_space, require_lengths, require_movable, require_resumable, require_sequences, require_texts
from bitwright.pipeline.finishing.building import require_same_model
from bitwright.pipeline.loaded_run import LoadedRun, require_device, set_up
from bitwright.pipeline.planning.candidates import make_plan
from bitwright.pipeline.planning.held_out import measure_candidates
from bitwright.pipeline.pricing.run_space import original_bytes, whole_space
from bitwright.pipeline.results import require_folder, require_run_folder
from bitwright.pipeline.run import Run
from bitwright.pipeline.run_lock import working_in
from bitwright.pipeline.settings import Settings
from bitwright.progress import Progress, Silent
from bitwright.spaces import Choice, Plan, Space, Tensor, discover, role_of, small_text

_UNPRICED = "none"


def import_plan(settings: Settings, file: Path, dialect: str, out: Path, *, device: str = "cpu", progress: Progress | None = None) -> Plan:
    """Return the plan in `file`, written in `dialect`, for the model and target of `settings`, measured on held-out text.

    Tensors that the file does not quantize stay unquantized; `formats` and `skip` of the settings are replaced by the file's. The packed tensors and
    measurements are stored in the folder `out`.

    Raises:
        UserError: there is no such dialect or file, it cannot be parsed, or the target or the model's rows do not allow a format.
    """
    progress, view = progress or Silent(), engine_named(settings.target).view
    require_folder(out)
    require_run_folder(settings, out, {})
    require_device(device)
    require_texts(settings.calibration, settings.held_out)
    view.prepare(settings.model, progress)
    outline = open_headers(settings.model, view)
    require_lengths(outline, settings.sequence_length, settings.sequence_length, settings.target)
    require_sequences(outline, settings.calibration, settings.held_out, settings.shape, column=settings.text_column)
    require_movable(settings.engine, outline, settings.steps)
    formats, unquantized = _read(settings, outline, file, dialect)
    if not formats:
        raise PlanError(
            f"A plan must quantize a tensor; {file} leaves all {len(unquantized)} matrices of the model as they are: name a format for one."
        )
    asked = replace(settings, formats=tuple(sorted(set(formats.values()))), skip=unquantized)
    _choice(named_space(asked, outline.least), formats)
    require_resumable(asked.on_device(device), out)
    with working_in(out):
        loaded = set_up(asked, out, device=device, progress=progress)
        space = whole_space(loaded)
        choice = _choice(space, formats)
        run = _run(loaded, space, choice)
        for unit, form in zip(space.units, choice, strict=True):
            for tensor in unit.tensors:
                loaded.levels.packed(tensor, space.formats[form])  # while the model still has its original weights
        measure_candidates(loaded, run, [choice])
        measurement = (run.measurements | run.shipped)[tuple(choice.tolist())]
        size = f"{space.total_bytes(choice)}B"
        made = make_plan(run, budget=size, strategy=f"imported from {dialect}", measurement=measurement)
        return made.model_copy(update={"found": made.found.model_copy(update={"sensitivity": _UNPRICED})})


def _read(settings: Settings, outline: Outline, file: Path, dialect: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return tensor → format, and the names of the matrices that the file leaves unquantized."""
    tool, target = dialect_named(dialect), target_named(settings.target)
    if not tool.expresses(target.formats):
        others = ", ".join(name for name, other in ENGINES.items() if tool.expresses(other.target.formats))
        raise PlanError(f"Formats of {dialect} must be those of the target; {target.name} has others: choose --target {others}.")
    try:
        text = small_text(file)
    except (OSError, ValueError) as error:
        raise TextError(f"A plan of {dialect} must be a file of UTF-8 text that can be read; {file} is not: check the path.") from error
    formats = tool.read(text, _named_by(tool, outline), offered_by(target.formats))
    return formats, tuple(tensor.name for tensor in _decidable(outline) if tensor.name not in formats)


def _named_by(tool: Dialect, outline: Outline) -> Modules:
    """Return the names that a file of that dialect uses: modules, or the engine's tensors, including stacks of experts."""
    if not tool.same_codes:
        return modules_of(outline.least.tensors, outline.pieces)
    return {tensor.name: Module(tensor.name, tensor.shape, role_of(tensor)) for tensor in _decidable(outline)}


def _decidable(outline: Outline) -> Iterator[Tensor]:
    """Yield the matrices that a plan can quantize, without routers and vectors."""
    return (tensor for unit in discover(outline.least.tensors) for tensor in unit.tensors if tensor.name in outline.pieces)


def _choice(space: Space, formats: dict[str, str]) -> Choice:
    """Return the index of each unit's format `(n_units,)`."""
    index, choice = {form.name: f for f, form in enumerate(space.formats)}, []
    for unit, offered in zip(space.units, space.offered, strict=True):
        wanted = {formats[tensor.name]: tensor.name for tensor in unit.tensors}
        if len(wanted) > 1:
            (one, first), (other, second), *_ = wanted.items()
            raise PlanError(f"This target wants {first} and {second} in one format; the file has {one} and {other}: give both the same.")
        (form, tensor), *_ = wanted.items()
        if not offered[index[form]]:
            raise PlanError(f"The target must hold what a file asks for; it cannot hold {form} of {tensor}: give this tensor another format.")
        choice.append(index[form])
    return np.array(choice, dtype=np.int64)


def _run(loaded: LoadedRun, space: Space, choice: Choice) -> Run:
    """Return a run that offers this one choice, with a sensitivity table of zeros."""
    tried = np.zeros(space.offered.shape, dtype=bool)
    tried[np.arange(len(choice)), choice] = True
    unpriced = np.where(tried, 0.0, np.nan)
    return Run(
        loaded.folder,
        loaded.store,
        loaded.settings,
        space,
        tried=tried,
        table=unpriced,
        second_table=unpriced,
        original_bytes=original_bytes(loaded),
    )


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
    if plan.structure is not None:
        raise PlanError(f"{to} expresses formats of whole tensors; this plan has a structure: plan without --structure.")
    text = dialect.write(plan.formats, modules_of(model.tensors, model.pieces))
    if dialect.same_codes:
        return Exported(text, f"{to} reproduces the measured codes if it is given the plan's importance matrix ({plan.importance.path}).")
    found = f"{plan.divergence.nats_per_token:.4g} nats/token"
    return Exported(text, f"{to} requantizes with its own rounding: the plan's divergence ({found}) does not carry over, so measure its model.")
