"""What a verb reads and what it writes, held apart before any work.

No result may be, lie in or hold what it is made from, nor replace what Bitwright did not write.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from bitwright.engines import MODEL, engine_named
from bitwright.errors import OutputError
from bitwright.pipeline.calibration_mix import shares_in
from bitwright.pipeline.run import CODES, DATABASE, IMATRIX, LEVELS, PLAN, REPORT, SHIPPED, STEPS, Run
from bitwright.pipeline.settings import SELF, Settings
from bitwright.spaces import Kept, Plan
from bitwright.whole_files import refusing, remove_leftovers
from bitwright.written_files import require_apart, require_replaceable

PLAN_KIND, TYPES_KIND, REPORT_KIND, FLEET_KIND = "plan", "tensor types", "report", "fleet"
TENSOR_TYPES = "tensor-types.txt"
_OF_A_RUN = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", IMATRIX, LEVELS, SHIPPED, CODES, STEPS)


def require_results(results: Mapping[Path, str], reads: Iterable[Path]) -> None:
    """Refuse results, path → kind, that would harm what is read or what is there; a name that a killed process left unfinished is given back.

    Raises:
        OutputError: one would.
    """
    require_apart(results, _there(reads))
    for path, kind in results.items():
        require_replaceable(path, kind)
        remove_leftovers(path.parent)


def require_run_folder(settings: Settings, out: Path, results: Mapping[str, str]) -> None:
    """The same for what a run keeps in `out`, and for the results of those names, → kind, that it leaves there.

    Raises:
        OutputError: see above, or files lie where a run would keep its own, and there is no run.
    """
    own = [out / name for name in _OF_A_RUN]
    require_apart(own, _there(read_by_settings(settings)))
    with refusing(out):
        strange = next((path for path in own if path.exists()), None)
        if strange and not (out / DATABASE).exists():
            raise OutputError(f"A new run begins where none of its files are; {strange} is there: name another --out, or remove it yourself.")
    require_results({out / name: kind for name, kind in results.items()}, read_by_settings(settings))


def of_fit(target: str) -> dict[str, str]:
    """What `fit` leaves beside the run itself, by its name, and the kind of each."""
    plan = {path.name: kind for path, kind in of_plan(Path(PLAN), target).items()}
    return plan | {REPORT: REPORT_KIND, engine_named(target).file_name: MODEL}


def of_plan(path: Path, target: str) -> dict[Path, str]:
    """The files of a plan, and the kind of each: beside it, where the engine has such, the same as lines for `llama-quantize`."""
    return {path: PLAN_KIND} | ({path.with_suffix(f".{TENSOR_TYPES}"): TYPES_KIND} if engine_named(target).writes_tensor_types else {})


def read_by_settings(settings: Settings) -> list[Path]:
    """The files and folders that a run is made from."""
    texts = [share.name for share in shares_in(settings.calibration) if share.name != SELF]
    return [Path(settings.model), *(path for name in (*texts, settings.held_out, settings.imatrix) if (path := Path(name)).is_file())]


def read_by_run(run: Run) -> list[Path]:
    """What a run was made from, and what it keeps."""
    return [*read_by_settings(run.settings), *(run.folder / name for name in _OF_A_RUN)]


def read_by_plan(plan: Plan) -> list[Path]:
    """The files and folders that a plan is built from."""
    codes = [plan.rounding.path] if isinstance(plan.rounding, Kept) else []
    files = (plan.importance.path, *codes, *(step.path for step in plan.steps))
    return [Path(plan.model.source), *(path for name in files if (path := Path(name)).is_file())]


def _there(reads: Iterable[Path]) -> list[Path]:
    """Those that are files or folders here: a dataset and a model of the hub are not."""
    return [path for path in reads if path.exists()]
