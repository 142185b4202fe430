"""Time of a gradient sweep beside other work: wall seconds with 0, 2 and 6 processes that do nothing but compute, as the command line has its threads
wait for each other, with as many of them as `--threads free` counts, and as OpenMP has them by itself.

Alone, a sweep has all cores. Beside others its threads have a fair share of them: cores · threads / (threads + others), and no more than one for each
thread. That explains a factor of cores over the share; the last column is what is beyond it.

usage: python benchmarks/beside.py MODEL --calibration TEXT --out FOLDER [--others 0,2,6] [--sequences 4,64] [--ways passively,free]
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import bitwright as bw
from bitwright.cli.start import waiting
from bitwright.devices import processors
from bitwright.devices.processors import free_processors
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.price_table import subject_of
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.predictors import gradient_products
from bitwright.progress import Silent
from bitwright.spaces import Space

WAYS = PASSIVELY, FREE, OPENMP = "passively", "free", "OpenMP's"
_WAY = "BITWRIGHT_BESIDE"


def main() -> None:
    """Print the seconds of all ways, each in a process of its own, since threads read the environment once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--others", default="0,2,6")
    parser.add_argument("--sequences", default="4,64")
    parser.add_argument("--ways", default=",".join(WAYS))
    given = parser.parse_args()
    if way := os.environ.get(_WAY):
        n_sequences, length = map(int, given.sequences.split(","))
        settings = bw.Settings(
            given.model, calibration=given.calibration, formats=("Q8_0", "Q4_0"), n_calibration=n_sequences, sequence_length=length
        )
        measure(set_up(settings, given.out / way.replace("'", ""), device="cpu", progress=Silent()), [int(n) for n in given.others.split(",")], way)
        return
    print(f"{'way':14s}{'others':>8s}{'threads':>9s}{'seconds':>10s}{'factor':>9s}{'explained':>11s}{'beyond it':>11s}", flush=True)
    for way in given.ways.split(","):
        found = {} if way == OPENMP else waiting({})
        without = {name: value for name, value in os.environ.items() if name not in waiting({})}
        subprocess.run([sys.executable, *sys.argv], env={**without, **found, _WAY: way}, check=True)


def measure(run: LoadedRun, others: list[int], way: str) -> None:
    """Sweep beside each number of other processes, with labels of another seed each time, since a run keeps what it has."""
    space, n_threads, n_cores = whole_space(run), torch.get_num_threads(), processors()
    swept(run, space, 0)  # quantizes, and touches what is needed
    alone = 0.0
    for n in others:
        with busy(n):
            if way == FREE and n:
                n_threads = free_processors()
                torch.set_num_threads(n_threads)
            seconds = swept(run, space, n + 1)
        alone = alone or seconds
        share = min(n_threads, n_cores * n_threads / (n_threads + n))
        factor, explained = seconds / alone, n_cores / share
        print(f"{way:14s}{n:8d}{n_threads:9d}{seconds:10.1f}{factor:9.1f}{explained:11.1f}{factor / explained:11.2f}", flush=True)


def swept(run: LoadedRun, space: Space, seed: int) -> float:
    """Return the wall seconds of a sweep."""
    subject = subject_of(replace(run, settings=replace(run.settings, seed=seed)), space)
    started = time.perf_counter()
    gradient_products(subject)
    return time.perf_counter() - started


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Have `n` processes compute for as long as the block lasts."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
