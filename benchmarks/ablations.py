"""Ablations: decisions behind the default search that did not help, or only sometimes, each tried both ways.

    python benchmarks/ablations.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER

Allocations of the integers of `--bits` to the matrices of the blocks, in groups of `--group`, at budgets between uniform widths; nats/token on
held-out text, and the paired difference from the first row with its standard error:

    one sweep        the exact optimum of the default table, of 32 × 256 tokens
    eight sweeps     the same of a table of eight times the text
    128 × 64, …      the same tokens in shorter sequences, which the table is priced at
    damping d        one step from the first row's plan along the true slopes there, with the curvature times d
    search           the default search, forty evaluations
    exchanges        true evaluations of exchanges of bits around the first row's plan, and nothing else

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from race import LONG, Heat, numbers, searched

from bitwright.methods.by_name import method_named
from bitwright.pipeline import Run, Search, Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.price_table import distortion_of, subject_of
from bitwright.pipeline.pricing.run_space import price, whole_space
from bitwright.pipeline.searching.ask_tell_loop import Meter
from bitwright.pipeline.searching.model_problem import open_problem
from bitwright.pipeline.searching.search import DEFAULT
from bitwright.predictors import gradient_products, importance_error_table
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Choice

Table = NDArray[np.float64]
N_SEQUENCES, LENGTH, N_SWEEPS = 32, 256, 8
SHORTER = (64, 32)
DAMPINGS = (1.0, 2.0, 4.0, 8.0)
N_SEARCHED, N_EXCHANGES = 40, 250


@dataclass(frozen=True, eq=False)
class Row:
    """A way to allocate and its choice for each budget."""

    name: str
    choices: tuple[Choice, ...]


def priced(args: argparse.Namespace, folder: str, *, n_sequences: int, length: int) -> tuple[LoadedRun, Run]:
    """A run on that much text."""
    settings = Settings(
        model=args.model,
        target="integers",
        formats=tuple(f"INT{bits}_G{args.group}" for bits in args.bits),
        calibration=args.calibration,
        held_out=args.held_out,
        n_calibration=n_sequences,
        n_held_out=args.held_out_sequences,
        sequence_length=length,
        skip=("token_embd*",),
    )
    bench = set_up(settings, args.out / folder, device="cpu", progress=Silent())
    return bench, price(bench)


def budgets_of(args: argparse.Namespace, run: Run) -> list[int]:
    """Bits of a file at each of `--budgets`, between the uniform ones in proportion."""
    everything = run.everything
    sizes = sorted(int(everything.total_bits(everything.uniform(everything.formats[f]))) for f in np.flatnonzero(run.tried.any(axis=0)))
    return [int(np.interp(bits, sorted(args.bits), sizes[: len(args.bits)])) // 8 * 8 for bits in args.budgets]


def optima(run: Run, table: Table, budgets: list[int]) -> tuple[Choice, ...]:
    """Optima of a table at each of the budgets, in bits."""
    return tuple(solve(run.space, table, bits).choice for bits in budgets)


def many_sweeps(args: argparse.Namespace) -> Table:
    """The default table of eight times the text."""
    bench, run = priced(args, "eight", n_sequences=N_SWEEPS * N_SEQUENCES, length=LENGTH)
    space = whole_space(bench)
    table = shrunk_table(gradient_products(subject_of(bench, run.space)), importance_error_table(distortion_of(bench, space)))
    run.store.close()
    return np.where(run.space.offered, table, run.table)


def steps(bench: LoadedRun, run: Run, start: tuple[Choice, ...], budgets: list[int]) -> Iterator[Row]:
    """Yield one step along the slopes from each plan, at every damping."""
    found: dict[float, list[Choice]] = {damping: [] for damping in DAMPINGS}
    with open_problem(bench, run, DEFAULT, Meter()) as (problem, _):
        expand = problem.expand
        for choice, bits in zip(start, budgets, strict=True):
            slopes, curvatures = expand(choice)
            for damping in DAMPINGS:
                found[damping].append(solve(run.space, slopes + damping * curvatures, bits).choice)
    for damping, choices in found.items():
        yield Row(f"damping {damping:g}", tuple(choices))


def rows(args: argparse.Namespace, bench: LoadedRun, run: Run, budgets: list[int]) -> Iterator[Row]:
    """Every way, the default table's first."""
    one = optima(run, run.table, budgets)
    yield Row("one sweep", one)
    yield Row("eight sweeps", optima(run, many_sweeps(args), budgets))
    for length in SHORTER:
        n_sequences = N_SEQUENCES * LENGTH // length
        _, other = priced(args, f"of-{length}", n_sequences=n_sequences, length=length)
        yield Row(f"{n_sequences} × {length}", optima(run, other.table, budgets))
        other.store.close()
    yield from steps(bench, run, one, budgets)
    for name, method, n in (("search", method_named("auto"), N_SEARCHED), ("exchanges", LONG, N_EXCHANGES)):
        search = Search(replace(method, name=f"{name} of {n}"), evaluations=n)
        heats = (Heat(bench, run, bits, width, ()) for bits, width in zip(budgets, args.budgets, strict=True))
        yield Row(f"{name}, {n} evaluations", tuple(searched(heat, name, search, first=heat.priced()).choices[0] for heat in heats))


def show(run: Run, row: Row, first: Row, *, budgets: list[int]) -> None:
    """Print the divergence of a row's plans, and its paired difference from those of the first row."""
    cells = []
    for choice, other, bits in zip(row.choices, first.choices, budgets, strict=True):
        assert run.space.total_bits(choice) <= bits
        mine, theirs = (np.array(run.measurements[tuple(c.tolist())].by_sequence[:, 0]) for c in (choice, other))
        difference = mine - theirs
        error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        cells.append(f"{mine.mean():.4f}" + (f" ({difference.mean():+.4f} ± {error:.4f})" if row is not first else ""))
    print(f"{row.name:27}" + "".join(f"{cell:>27}" for cell in cells), flush=True)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder of weights that were never quantized")
    parser.add_argument("--calibration", required=True, help="text to price and search on")
    parser.add_argument("--held-out", required=True, help="text to measure on")
    parser.add_argument("--out", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--bits", type=numbers(int), default=(2, 3, 4, 6), help="of the integers (default: 2,3,4,6)")
    parser.add_argument("--group", type=int, default=32, help="weights that share a scale (default: %(default)s)")
    parser.add_argument("--budgets", type=numbers(float), default=(2.25, 2.5, 2.75, 3.0, 3.5), help="bits of a code (default: 2.25,2.5,2.75,3,3.5)")
    parser.add_argument("--held-out-sequences", type=int, default=64, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    bench, run = priced(args, "one", n_sequences=N_SEQUENCES, length=LENGTH)
    budgets = budgets_of(args, run)
    print(f"{'':27}" + "".join(f"{f'{bits:g} bits':>27}" for bits in args.budgets))
    first = None
    for row in rows(args, bench, run, budgets):
        measure(bench, run, list(row.choices))
        first = first or row
        show(run, row, first, budgets=budgets)


if __name__ == "__main__":
    main()
