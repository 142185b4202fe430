"""A whole `fit` of a model in memory and streamed block by block: seconds and peak memory of every stage, and whether the plans are the same.

Each runs in a process of its own, so that neither peak holds the other. Peaks are those of the process so far; in the engine's stages they hold the
files that llama.cpp maps into memory. On Linux the most memory within each kind of work is printed below, looked at ten times a second: what the
process has allocated, and pages of mapped files (libraries, models), which the system may take back. A fit that has ended is not run again, so that
`--modes` can be given one at a time and then together.

usage: python benchmarks/streaming.py MODEL --budget 90MB --calibration TEXT --search-memory 1.5GB --out FOLDER [--formats NAMES] [--sequences 8,8,64]
"""

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

from rich.console import Console

import bitwright as bw
from bitwright.objectives import readable_store
from bitwright.pipeline.run import DATABASE
from bitwright.progress import Advance, Silent

_STATUS = Path("/proc/self/status")
MODES = ("in memory", "streamed")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budget", required=True)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--held-out", default="")
    parser.add_argument("--search-memory", required=True)
    parser.add_argument("--formats", default="")
    parser.add_argument("--sequences", default="16,8,128")
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    n_calibration, n_held_out, length = map(int, given.sequences.split(","))
    settings = bw.Settings(
        given.model,
        calibration=given.calibration,
        held_out=given.held_out,
        formats=tuple(name for name in given.formats.split(",") if name),
        n_calibration=n_calibration,
        n_held_out=n_held_out,
        sequence_length=length,
    )
    n_bytes = bw.parse_budget(given.search_memory).size_bytes(0)
    of_mode = {"in memory": settings, "streamed": replace(settings, stream=True, search_memory_bytes=n_bytes)}
    modes = given.modes.split(",")
    for mode in modes:
        if has_ended(given.out / mode.replace(" ", "-")):
            continue
        process = get_context("spawn").Process(target=fit, args=(of_mode[mode], given.budget, given.evaluations, given.out / mode.replace(" ", "-")))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"the fit {mode} ended with {process.exitcode}")
    report({mode: given.out / mode.replace(" ", "-") for mode in modes})


def fit(settings: bw.Settings, budget: str, evaluations: int, folder: Path) -> None:
    """Fit the model, silently."""
    by, watched = bw.Search(bw.method_named("auto"), evaluations=evaluations), Watched()
    bw.fit(settings, bw.parse_budget(budget), folder, by=by, progress=watched)
    memory_of(folder).write_text(json.dumps(watched.most))


def memory_of(folder: Path) -> Path:
    """Return the file with the most memory of each kind of work of a fit in `folder`."""
    return folder.with_name(f"{folder.name}.memory.json")


class Watched(Silent):
    """Progress that keeps the most bytes that the process had allocated and mapped since each stage began, by its title."""

    def __init__(self) -> None:
        self.most, self._title = dict[str, list[int]](), "Loading"
        Thread(target=self._look, daemon=True).start()

    def stage(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Enter a stage."""
        self._title = title
        return super().stage(title, total)

    def _look(self) -> None:
        while _STATUS.exists():
            said = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
            now = [1024 * int(said[name].split()[0]) for name in ("RssAnon", "RssFile")]
            self.most[self._title] = [max(pair) for pair in zip(now, self.most.get(self._title, [0, 0]), strict=True)]
            time.sleep(0.1)


def has_ended(folder: Path) -> bool:
    """Return whether a fit in `folder` has come to its last stage, the check."""
    if not (folder / DATABASE).exists():
        return False
    with closing(readable_store(folder / DATABASE)) as store:
        return "check" in [name for name, *_ in store.stages()]


def report(folders: Mapping[str, Path]) -> None:
    """Print the stages side by side, and whether the plans have the same formats and divergence."""
    console, stages, plans = Console(width=150), {}, []
    for mode, folder in folders.items():
        with closing(readable_store(folder / DATABASE)) as store:
            stages[mode] = {name: (seconds, peak) for name, seconds, _, peak in store.stages()}
        plans.append(bw.read_plan(folder / "plan.json"))
    console.print(f"{'stage':12s}" + "".join(f"{mode + ', s':>16s}{'GB':>7s}" for mode in folders))
    for name in next(iter(stages.values())):
        found = [stages[mode].get(name, (0.0, 0)) for mode in folders]
        console.print(f"{name:12s}" + "".join(f"{seconds:16.1f}{peak / 1e9:7.2f}" for seconds, peak in found), highlight=False)
    for mode, folder in folders.items():
        if memory_of(folder).exists():
            console.print(f"{mode}: allocated and mapped, GB at most")
            for title, (allocated, mapped) in json.loads(memory_of(folder).read_text()).items():
                console.print(f"  {title:50s}{allocated / 1e9:7.2f}{mapped / 1e9:7.2f}", highlight=False)
    same = all(plan.formats == plans[0].formats and plan.divergence == plans[0].divergence for plan in plans)
    console.print(f"{plans[0].size_bytes:,} bytes, {plans[0].divergence.nats_per_token:.5f} nats/token; the same plan: {same}", highlight=False)


if __name__ == "__main__":
    main()
