"""Checks that a command's results can be written and do not overwrite its inputs, made before any work.

No result may be, lie in or contain one of its inputs, or replace a file that Bitwright did not write.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bitwright.compress import named_parts, parts_beside, split_name
from bitwright.engines import MODEL, engine_named
from bitwright.errors import OutputError
from bitwright.pipeline.calibration.mixture import shares_in
from bitwright.pipeline.run import CODES, DATABASE, IMATRIX, LEVELS, PLAN, REORDERED, REPORT, SHIPPED, STEPS, Run
from bitwright.pipeline.settings import SELF, Settings
from bitwright.spaces import Healed, Kept, Plan
from bitwright.whole_files import output_errors, remove_leftovers
from bitwright.written_files import require_apart, require_replaceable


def require_folder(path: Path) -> None:
    """Raise if a folder cannot be written or created.

    Raises:
        OutputError: see above.
    """
    there = _nearest(path)
    if not os.path.isdir(there):  # noqa: PTH112  # False, not an error, if a name is too long
        raise OutputError(f"Results must be writable to {path}, a folder; {there} is a file: choose another --out.")
    _require_open(there, path)


def require_file(path: Path) -> None:
    """Raise if a file cannot be written at its path.

    Raises:
        OutputError: see above.
    """
    if os.path.isdir(path):  # noqa: PTH112
        raise OutputError(f"The file must be writable to {path}; it is not (that is a folder): name a file in it.")
    require_place(path)


def require_place(path: Path) -> None:
    """Raise if a file or folder cannot be created at its path.

    Raises:
        OutputError: see above.
    """
    there = _nearest(path.parent)
    if not os.path.isdir(there):  # noqa: PTH112
        raise OutputError(f"Results must be writable to {path}; they are not ({there} is a file): choose another place.")
    _require_open(there, path)


def _nearest(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next((part for part in (path, *path.parents) if os.path.lexists(part)), Path())


def _require_open(folder: Path, path: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"Results must be writable to {path}; the folder {folder} cannot be written: choose another place or another --out.")


PLAN_KIND, TYPES_KIND, REPORT_KIND, FLEET_KIND = "plan", "tensor types", "report", "fleet"
TENSOR_TYPES = "tensor-types.txt"
_OF_A_RUN = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", IMATRIX, LEVELS, REORDERED, SHIPPED, CODES, STEPS)


def require_results(results: Mapping[Path, str], reads: Iterable[Path]) -> None:
    """Raise if results, path → kind, would overwrite inputs or foreign files; remove temporary files that a killed process left.

    Raises:
        OutputError: see above.
    """
    require_apart(results, _there(reads))
    for path, kind in results.items():
        require_replaceable(path, kind)
        remove_leftovers(path.parent)


def require_run_folder(settings: Settings, out: Path, results: Mapping[str, str]) -> None:
    """Raise if the run's own files in `out`, or results there (name → kind), would overwrite inputs or foreign files.

    Raises:
        OutputError: see above, or `out` has files of a run without its database.
    """
    own = [out / name for name in _OF_A_RUN]
    require_apart(own, _there(settings_inputs(settings)))
    with output_errors(out):
        strange = next((path for path in own if path.exists()), None)
        if strange and not (out / DATABASE).exists():
            raise OutputError(
                f"A new run needs a folder without files of another run; {strange} is there: name another --out, or remove it yourself."
            )
    require_results({out / name: kind for name, kind in results.items()}, settings_inputs(settings))


def fit_results(target: str, out: Path) -> dict[str, str]:
    """Return the results that `fit` writes to `out` beside the run's own files, name → kind, and parts of a split model that are there already."""
    plan = {path.name: kind for path, kind in plan_results(Path(PLAN), target).items()}
    model = out / engine_named(target).file_name
    return plan | {REPORT: REPORT_KIND} | {path.name: MODEL for path in (model, *parts_beside(model))}


def plan_results(path: Path, target: str) -> dict[Path, str]:
    """Return the files of a plan, path → kind: the plan, and if the engine uses them, the tensor types for `llama-quantize`."""
    return {path: PLAN_KIND} | ({path.with_suffix(f".{TENSOR_TYPES}"): TYPES_KIND} if engine_named(target).writes_tensor_types else {})


def settings_inputs(settings: Settings) -> list[Path]:
    """Return the input files and folders of a run."""
    texts = [share.name for share in shares_in(settings.calibration) if share.name != SELF]
    return [*_model_paths(settings.model), *(path for name in (*texts, settings.held_out, settings.imatrix) if (path := Path(name)).is_file())]


def run_inputs(run: Run) -> list[Path]:
    """Return the inputs of a run and its own files."""
    return [*settings_inputs(run.settings), *(run.folder / name for name in _OF_A_RUN)]


def plan_inputs(plan: Plan) -> list[Path]:
    """Return the files and folders that a plan is built from."""
    codes = [plan.rounding.path] if isinstance(plan.rounding, Kept) else []
    parts = (plan.structure.compensation, plan.structure.scores) if plan.structure is not None else ()
    of_structure = (part.path for part in parts if part is not None)
    files = (plan.importance.path, *codes, *(step.path for step in plan.steps if not isinstance(step, Healed)), *of_structure)
    return [*_model_paths(plan.model.source), *(path for name in files if (path := Path(name)).is_file())]


def _model_paths(name: str) -> list[Path]:
    """Return the paths that a model is read from: its own, and the way to its GGUF file where the name has one, with all parts of a split file."""
    return [path for part in split_name(name) if part for path in named_parts(Path(part))]


def _there(reads: Iterable[Path]) -> list[Path]:
    """Return the paths that exist here; datasets and models of the hub do not."""
    return [path for path in reads if path.exists()]
