"""Cost of `fit`: seconds, processor seconds, tokens and peak memory of every stage, the quantizer against libggml's own speed, and the command line's
start.

usage: python benchmarks/main_job.py MODEL.gguf --budget 90MB --out FOLDER
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from rich.console import Console

import bitwright as bw
from bitwright.compress import GgmlCodec
from bitwright.compress.models.gguf.libggml import library
from bitwright.engines import LLAMA_CPP
from bitwright.progress import Advance, Progress, ignore
from bitwright.search import hull, solve
from bitwright.spaces import Budget

ROWS, COLUMNS = 4608, 1536


class ProcessorTime(Progress):
    """Progress that prints the seconds of each stage: those that passed, and those of the processor in this process and the ones that it started."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        started, spent = time.perf_counter(), processor_seconds()
        yield ignore
        self._console.print(
            f"{title:44s} {time.perf_counter() - started:7.1f} s, {processor_seconds() - spent:7.1f} s of the processor", highlight=False
        )


def processor_seconds() -> float:
    """User and system seconds of this process and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budget", default="90MB")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    console = Console()
    started = time.perf_counter()
    fitted = bw.fit(bw.Settings(given.model), bw.parse_budget(given.budget), given.out, progress=ProcessorTime(console))
    total = time.perf_counter() - started
    console.print(f"in all {total:.0f} s, {processor_seconds():.0f} s of the processor")
    console.print(bw.report.candidates_table(fitted.summary))
    console.print(bw.report.stages_table(fitted.summary))
    console.print(f"fit took {total:.0f} s; promised {fitted.plan.size_bytes:,} bytes, found {fitted.model.stat().st_size:,}")
    time_solver(given.out, console, bw.parse_budget(given.budget))
    time_quantizer(console)
    time_help(console)


def time_solver(folder: Path, console: Console, budget: Budget) -> None:
    """The exact knapsack and the whole front on this run's own space."""
    run = bw.open_run(folder)
    started = time.perf_counter()
    solution = solve(run.space, run.table, 8 * budget.size_bytes(run.space.n_weights))
    solved = time.perf_counter()
    front = hull(run.space, run.table)
    console.print(f"solver {solved - started:.4f} s, proven gap {solution.gap:.1e}")
    console.print(f"front of {len(front.loss)} points {time.perf_counter() - solved:.4f} s")


def time_quantizer(console: Console) -> None:
    """Time our quantizer against bare calls of libggml on as many threads, in turn, on the same weights."""
    weights = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    importance, codec = np.ones((1, COLUMNS), dtype=np.float32), GgmlCodec()
    for name in ("Q8_0", "Q4_0", "Q4_K", "Q6_K", "IQ4_NL"):
        ratios, rates = [], []
        codec.encode(weights, LLAMA_CPP.format(name), importance)
        for _ in range(5):
            bare = seconds_of_bare_calls(weights, name, importance)
            started = time.perf_counter()
            codec.encode(weights, LLAMA_CPP.format(name), importance)
            ours = time.perf_counter() - started
            ratios.append(bare / ours)
            rates.append(weights.size / ours / 1e6)
        console.print(f"{name:7s} {np.median(rates):7.1f} million weights/s, {np.median(ratios):.2f} × bare libggml (median of 5)")


def seconds_of_bare_calls(weights: np.ndarray, name: str, importance: np.ndarray) -> float:
    """Seconds of `ggml_quantize_chunk` alone, the rows shared out evenly over all cores."""
    lib, kind, n = library(), GGMLQuantizationType[name], os.cpu_count() or 1
    form = LLAMA_CPP.format(name)
    packed = np.empty((ROWS, form.size_bytes((1, COLUMNS))), dtype=np.uint8)
    edges = np.linspace(0, ROWS, n + 1).astype(int)

    def work(part: int) -> None:
        start, stop = int(edges[part]), int(edges[part + 1])
        pointers = weights[start:].ctypes.data, packed[start:].ctypes.data
        lib.ggml_quantize_chunk(kind, *pointers, 0, stop - start, COLUMNS, ctypes.c_void_p(importance.ctypes.data))

    with ThreadPoolExecutor(n) as pool:
        started = time.perf_counter()
        list(pool.map(work, range(n)))
        return time.perf_counter() - started


def time_help(console: Console) -> None:
    """The start of the command line."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([str(Path(sys.executable).with_name("bitwright")), "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    console.print(f"bitwright --help {np.median(times):.2f} s (median of 5)")


if __name__ == "__main__":
    main()
