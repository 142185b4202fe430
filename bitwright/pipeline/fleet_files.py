"""A fleet as files: a plan for every device, a model for every different plan, a manifest, and a page with each device's point on the front."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from re import sub
from typing import Any

from bitwright.compress import digest
from bitwright.pipeline.building import build, target_of
from bitwright.pipeline.fleet import Assigned, Fleet, Unserved
from bitwright.pipeline.planning import write_text
from bitwright.pipeline.summary import summarise
from bitwright.progress import Progress, Silent
from bitwright.report import NoLimit, write_page
from bitwright.spaces import Plan

MANIFEST, PAGE, PLANS, MODELS = "fleet.json", "report.html", "plans", "models"
_INTERVAL = 1.645  # standard errors to either side that hold 90 % of a normal


def build_fleet(fleet: Fleet, out: Path, *, progress: Progress | None = None) -> dict[str, str]:
    """Build a model for every different plan into `out`: name within `out` → SHA-256. One that is there already is not built again.

    Raises:
        UserError: see `build`.
    """
    plans = {model_name(row.plan): row.plan for row in fleet.assigned}
    for name, plan in plans.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (path.is_file() and path.stat().st_size == plan.size_bytes):
            build(plan, path, progress=progress or Silent())
    return {name: digest(out / name) for name in plans}


def write_fleet(fleet: Fleet, out: Path, *, checksums: Mapping[str, str]) -> Path:
    """Write plans, page and manifest to `out`, and give the manifest's path. `checksums` are those of `build_fleet`, none where nothing was built.

    Raises:
        OutputError: the folder cannot be written.
    """
    for row in fleet.assigned:
        write_text(out / plan_name(row), row.plan.to_json())
    if fleet.assigned:
        _write_page(fleet, out / PAGE)
    manifest = {
        "schema_version": 1,
        "bitwright": importlib.metadata.version("bitwright"),
        "model": fleet.run.settings.model,
        "devices": [_record(row, checksums) for row in fleet.rows],
    }
    write_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return out / MANIFEST


def plan_name(row: Assigned) -> str:
    """Where a device's plan is written, within the fleet's folder."""
    return f"{PLANS}/{sub(r'[^a-z0-9]+', '-', row.device.name.lower()).strip('-')}.json"


def model_name(plan: Plan) -> str:
    """Where the model of a plan is built, within the fleet's folder: equal choices for one model have one name."""
    said = json.dumps([plan.model.fingerprint, sorted(plan.model.settings.items()), plan.importance.sha256, sorted(plan.formats.items())])
    return f"{MODELS}/{hashlib.sha256(said.encode()).hexdigest()[:12]}{Path(target_of(plan).file_name).suffix}"


def _record(row: Assigned | Unserved, checksums: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(row, Unserved):
        return {"name": row.device.name, "fits": False, "reason": row.reason}
    name, promise = model_name(row.plan), row.plan.divergence
    spread = _INTERVAL * promise.standard_error
    built = {"sha256": checksums[name]} if name in checksums else {}
    return {
        "name": row.device.name,
        "fits": True,
        "plan": plan_name(row),
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
    """The report of the run with every device's point on the front, the first device's plan as the one looked at closely."""
    names: dict[tuple[int, ...], list[str]] = {}
    for row in fleet.assigned:
        names.setdefault(tuple(row.choice.tolist()), []).append(row.device.name)
    named = {" · ".join(devices): row.choice for row in fleet.assigned for devices in [names[tuple(row.choice.tolist())]]}
    write_page(summarise(fleet.run, named=named, chosen=next(iter(named)), limit=NoLimit()), path)
