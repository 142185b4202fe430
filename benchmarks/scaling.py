"""Time of quantizing, sweep and evaluation of a run by workers of a Ray cluster on this machine, against one process, and the bytes that travel.

Each number of workers has a run folder of its own, so that nothing is measured before. The time of loading is left out: workers load while the driver
does. Efficiency is the time of one process over that of n workers times n.

usage: python benchmarks/scaling.py MODEL --calibration TEXT --out FOLDER [--workers 1,2] [--formats NAMES] [--sequences 32,8,128] [--choices 4]
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import bitwright as bw
from bitwright.compress import EXPANDED_BYTES, choice_loader, swapping
from bitwright.objectives import QUALITY, Evaluator
from bitwright.pipeline.loaded_run import LoadedRun, referenced_if_needed, set_up
from bitwright.pipeline.pricing.price_table import distortion_of, subject_of
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.workers.cluster import AUTO, Cluster
from bitwright.pipeline.workers.measuring import measuring_of
from bitwright.pipeline.workers.opening import workers_on
from bitwright.pipeline.workers.ray_workers import RayWorkers
from bitwright.pipeline.workers.workers import Workers
from bitwright.predictors import gradient_products
from bitwright.progress import Silent
from bitwright.spaces import Choice, Space

PARTS = ("quantizing", "sweep", "evaluation")


@dataclass
class Figures:
    """Seconds of each part, bytes of packed tensors that workers received in it and of results that they returned, and a digest of what was found."""

    seconds: dict[str, float] = field(default_factory=dict)
    moved: dict[str, tuple[int, int]] = field(default_factory=dict)
    found: list[float] = field(default_factory=list)

    @contextmanager
    def timing(self, part: str, workers: Workers | None) -> Iterator[None]:
        before, started = moved_bytes(workers), time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - started
        received, returned = moved_bytes(workers)
        self.moved[part] = received - before[0], returned - before[1]


def moved_bytes(workers: Workers | None) -> tuple[int, int]:
    return workers.moved_bytes if isinstance(workers, RayWorkers) else (0, 0)


def main() -> None:
    """Print a row for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--formats", default="")
    parser.add_argument("--sequences", default="32,8,128")
    parser.add_argument("--choices", type=int, default=4)
    given = parser.parse_args()
    n_calibration, n_held_out, length = map(int, given.sequences.split(","))
    settings = bw.Settings(
        given.model,
        calibration=given.calibration,
        formats=tuple(name for name in given.formats.split(",") if name),
        n_calibration=n_calibration,
        n_held_out=n_held_out,
        sequence_length=length,
    )
    rows = {0: measured(settings, given.out / "alone", None, given.choices)}
    for n in map(int, given.workers.split(",")):
        rows[n] = measured(settings, given.out / f"{n}-workers", Cluster(AUTO, n), given.choices)
    report(rows)


def measured(settings: bw.Settings, folder: Path, cluster: Cluster | None, n_choices: int) -> Figures:
    """Quantize, sweep and evaluate with the workers of a cluster, or in this process."""
    found = Figures()
    with workers_on(cluster, settings, folder, device="cpu", progress=Silent()) as workers:
        run = set_up(settings, folder, device="cpu", progress=Silent(), workers=workers)
        if isinstance(workers, RayWorkers):
            workers.gather()
        space = whole_space(run)
        with found.timing("quantizing", workers):
            distortion = distortion_of(run, space)
        narrow = space.narrowed(distortion.worth_offering(space))
        with found.timing("sweep", workers):
            products = gradient_products(subject_of(run, narrow))
        with found.timing("evaluation", workers):
            found.found = [*evaluated(run, narrow, n_choices), float(np.abs(products.values).sum())]
    return found


def evaluated(run: LoadedRun, space: Space, n_choices: int) -> Iterator[float]:
    """Yield the divergences of random choices over all sizes."""
    tokens, choices = run.texts.calibration, drawn(space, n_choices)
    with swapping(run.model, expanded_bytes=EXPANDED_BYTES) as swapper, referenced_if_needed(run, tokens, swapper.restore) as reference:
        by = measuring_of(run.workers, run.levels, space, tokens, is_streamed=run.model.residence.is_streamed)
        load = choice_loader(swapper, run.model, run.levels, space)
        evaluator = Evaluator(run.model, load, reference=reference, objectives=QUALITY, store=run.store, measuring=by)
        yield from (measurement.first.value for measurement in evaluator.evaluate(choices, evaluator.n_sequences))


def drawn(space: Space, n_choices: int) -> list[Choice]:
    """Random formats for every unit."""
    rng = np.random.default_rng(0)
    return [np.array([rng.choice(np.flatnonzero(offered)) for offered in space.offered]) for _ in range(n_choices)]


def report(rows: dict[int, Figures]) -> None:
    alone = rows[0]
    print(f"{'':12s}" + "".join(f"{part + ', s':>16s}{'efficiency':>12s}{'MB sent':>10s}{'returned':>10s}" for part in PARTS) + f"{'equal':>8s}")
    for n, of_row in rows.items():
        cells = []
        for part in PARTS:
            sent, returned = of_row.moved[part]
            efficiency = f"{alone.seconds[part] / of_row.seconds[part] / n:.0%}" if n else ""
            cells.append(f"{of_row.seconds[part]:16.1f}{efficiency:>12s}{sent / 1e6:10.2f}{returned / 1e6:10.2f}")
        name = f"{n} worker{'s' * (n > 1)}" if n else "one process"
        print(f"{name:12s}" + "".join(cells) + f"{of_row.found == alone.found!s:>8s}")


if __name__ == "__main__":
    main()
