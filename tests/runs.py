"""Settings of runs that take a second, and what a run folder holds."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import bitwright as bw

#: the search that measures nothing: what is found is the table's optimum
UNSEARCHED = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=0)
#: a search that measures a few choices, where a test needs a finished search and not the best plan
BRIEF = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=4)


def small(model: Path | str, **other: Any) -> bw.Settings:
    """A search over few and short sequences."""
    return bw.Settings(str(model), **{"formats": ("Q8_0", "Q4_0"), "n_calibration": 8, "n_held_out": 4, "sequence_length": 24, **other})


def rows(folder: Path) -> dict[str, dict[Any, Any]]:
    """Every array and every measurement of a run: a digest of each by name, and record by row number."""
    database = sqlite3.connect(f"file:{folder / 'run.sqlite'}?mode=ro", uri=True)
    try:
        tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
        if not {"arrays", "measurements"} <= tables:
            return {"arrays": {}, "measurements": {}}
        arrays = {name: hashlib.sha256(data).hexdigest() for name, data in database.execute("select name, data from arrays")}
        return {
            "arrays": arrays,
            "measurements": {
                row: hashlib.sha256(data).hexdigest() for row, data in database.execute("select rowid, data from measurements order by rowid")
            },
        }
    finally:
        database.close()


def plan_without_paths(path: Path) -> dict[str, Any]:
    """A plan file, less the path of the importance matrix."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    del found["importance"]["path"]
    return found


def leftovers(folder: Path) -> list[str]:
    """Files that were begun and never finished."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.part"))
