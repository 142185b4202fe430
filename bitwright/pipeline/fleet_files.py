"""Write a fleet: a plan for every device, a model for every distinct plan, a manifest, and a report with each device's point on the front."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from re import sub
from typing import Any
from unicodedata import normalize

from bitwright.engines import MODEL, engine_named
from bitwright.errors import RunError
from bitwright.pipeline.finishing.building import build, target_of
from bitwright.pipeline.fleet import DevicePlan, DeviceWithoutPlan, Fleet
from bitwright.pipeline.reporting.run_summary import summarise
from bitwright.pipeline.results import FLEET_KIND, PLAN_KIND, REPORT_KIND, require_results, run_inputs
from bitwright.progress import Progress, Silent
from bitwright.report import write_page
from bitwright.spaces import Plan
from bitwright.written_files import digest, is_as_written, publish_text

MANIFEST, PAGE, PLANS, MODELS = "fleet.json", "report.html", "plans", "models"
_LONGEST = 100  # bytes of a device's name in the file name of its plan: file systems limit names to 255
_INTERVAL = 1.645  # half-width of the central 90 % interval of a normal distribution, in standard errors


def build_fleet(fleet: Fleet, out: Path, *, progress: Progress | None = None) -> dict[str, str]:
    """Build a model for every distinct plan into `out`, and return name within `out` → SHA-256. A model that is there already is not built again.

    Raises:
        UserError: see `build`.
    """
    split = fleet.run.settings.split_max_bytes
    if split:
        raise RunError(
            f"A fleet has one file for each model; this run was searched for parts of at most {split:,} bytes: search without --split-max-size."
        )
    plans = {model_name(row.plan): row.plan for row in fleet.assigned}
    _require(fleet, out, {out / name: MODEL for name in plans})
    for name, plan in plans.items():
        path = out / name
        if not (is_as_written(path, MODEL) and path.stat().st_size == plan.size_bytes):
            build(plan, path, progress=progress or Silent())
    return {name: digest(out / name) for name in plans}


def write_fleet(fleet: Fleet, out: Path, *, checksums: Mapping[str, str]) -> Path:
    """Write plans, report and manifest to `out`, and return the manifest's path. `checksums` are those of `build_fleet`, empty if nothing was built.

    Raises:
        OutputError: the folder cannot be written.
    """
    names = plan_names(fleet)
    _require(fleet, out, {})
    for row, name in zip(fleet.rows, names, strict=True):
        if isinstance(row, DevicePlan):
            publish_text(out / name, row.plan.to_json(), kind=PLAN_KIND)
    if fleet.assigned:
        _write_page(fleet, out / PAGE)
    manifest = {
        "schema_version": 1,
        "bitwright": importlib.metadata.version("bitwright"),
        "model": fleet.run.settings.model,
        "devices": [_record(row, name, checksums) for row, name in zip(fleet.rows, names, strict=True)],
    }
    publish_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n", kind=FLEET_KIND)
    return out / MANIFEST


def plan_names(fleet: Fleet) -> list[str]:
    """Return the path of each device's plan within the fleet's folder: the device's name as a file name, numbered if an earlier device has the same
    name up to the case of its letters.
    """
    found: list[str] = []
    for row in fleet.rows:
        stem, number = _stem(row.device.name), 1
        while (name := f"{PLANS}/{stem}{f'-{number}' * (number > 1)}.json") in found:
            number += 1
        found.append(name)
    return found


def _stem(name: str) -> str:
    """Return a device's name as a file stem: lowercase, Unicode-composed letters and digits, joined by hyphens."""
    plain = sub(r"[\W_]+", "-", normalize("NFKC", normalize("NFKC", name).casefold())).strip("-")
    return plain.encode()[:_LONGEST].decode(errors="ignore").strip("-") or "device"


def _require(fleet: Fleet, out: Path, models: Mapping[Path, str]) -> None:
    """Raise if a file of the fleet would replace an input of the run, or a file that Bitwright did not write."""
    plans = {out / name: PLAN_KIND for row, name in zip(fleet.rows, plan_names(fleet), strict=True) if isinstance(row, DevicePlan)}
    page = {out / PAGE: REPORT_KIND} if plans else {}
    require_results({**models, **plans, **page, out / MANIFEST: FLEET_KIND}, run_inputs(fleet.run))


def model_name(plan: Plan) -> str:
    """Return the path of a plan's model within the fleet's folder; plans with equal choices for one model share it."""
    said = json.dumps([plan.model.fingerprint, sorted(plan.model.settings.items()), plan.importance.sha256, sorted(plan.formats.items())])
    return f"{MODELS}/{hashlib.sha256(said.encode()).hexdigest()[:12]}{Path(engine_named(target_of(plan).name).file_name).suffix}"


def _record(row: DevicePlan | DeviceWithoutPlan, plan_path: str, checksums: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(row, DeviceWithoutPlan):
        return {"name": row.device.name, "fits": False, "reason": row.reason}
    name, promise = model_name(row.plan), row.plan.divergence
    spread = _INTERVAL * promise.standard_error
    built = {"sha256": checksums[name]} if name in checksums else {}
    return {
        "name": row.device.name,
        "fits": True,
        "plan": plan_path,
        "model": {"path": name, "size_bytes": row.plan.size_bytes} | built,
        "divergence": {
            "nats_per_token": promise.nats_per_token,
            "interval_90": [max(0.0, promise.nats_per_token - spread), promise.nats_per_token + spread],
            "basis": promise.basis,
        },
        "memory": {"usable_bytes": row.device.usable_bytes, "total_bytes": row.memory.total_bytes}
        | {line.name: line.size_bytes for line in row.memory.lines},
        "tokens_per_second_at_most": row.tokens_per_second,
        "context": row.device.context,
        "sequences": row.device.sequences,
        "cache": [row.plan.cache.keys, row.plan.cache.values],
    }


def _write_page(fleet: Fleet, path: Path) -> None:
    """Write the run's report with every device's point on the front; the details are those of the first device's plan."""
    names: dict[tuple[int, ...], list[str]] = {}
    for row in fleet.assigned:
        names.setdefault(tuple(row.choice.tolist()), []).append(row.device.name)
    named = {" · ".join(devices): row.choice for row in fleet.assigned for devices in [names[tuple(row.choice.tolist())]]}
    write_page(summarise(fleet.run, named=named, chosen=next(iter(named)), limit=None), path)
