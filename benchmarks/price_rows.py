"""Plans from prices of a sample of rows against plans from prices of all rows, at several budgets and seeds, and what the sample saves.

For each seed and budget both optima are measured on the same held-out text; the last column is their paired difference in its standard errors, below
zero where the sample's plan is better. Seconds are of the processor, for quantizing and for the sweep; no seed changes what all rows are quantized
to, so that the first one does it for all.

What a seed came to is a line of OUT/seeds.jsonl. The same command goes on after an interruption, with the seeds, batches and measurements that are
missing; of a seed that was interrupted, seconds leave out what was done before.

Rows are as many of each tensor as a number says, or what the default draws; `uniform` draws as many with equal chances.

usage: python benchmarks/price_rows.py MODEL --budgets 8.2bpw,8.8bpw --seeds 0,1,2 --rows 16,32 --out FOLDER [--calibration TEXT] [--formats NAMES]
"""

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import bitwright as bw
from bitwright.compress import Distortion, all_rows, choice_loader, swapping
from bitwright.objectives import Evaluator, KullbackLeibler, standard_error
from bitwright.pipeline.loaded_run import LoadedRun, referenced_if_needed, set_up
from bitwright.pipeline.pricing.price_table import distortion_of, quantized_distortion, subject_of
from bitwright.pipeline.pricing.priced_rows import priced_rows
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.settings import ALL_ROWS
from bitwright.predictors import gradient_products, proxy_named
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Budget, Choice, Space

Table = NDArray[np.float64]
DEFAULT, UNIFORM = "default", "uniform"
_SEEDS = "seeds.jsonl"
_NO_LIMIT = 1 << 50  # all rows in every format are kept, for all seeds and for the plans


@dataclass(frozen=True, eq=False)
class Priced:
    """Table of a run, with its prices before shrinkage, the seconds of quantizing and of the sweep, the weights that were quantized, and the median
    relative standard error of its prices from the sample.
    """

    space: Space
    table: Table
    prices: Table
    quantizing: float
    sweep: float
    n_quantized: int
    error: float


@dataclass(frozen=True)
class Found:
    """Result of a seed with the rows `rows`: a description of what they save and of how prices differ, and for each budget the divergences by
    sequence of the plan from all rows and of that from the sample.
    """

    seed: int
    rows: str
    saving: str
    ratios: str
    whole: Mapping[str, list[float]]
    sample: Mapping[str, list[float]]


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budgets", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default=DEFAULT)
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--held-out", default="")
    parser.add_argument("--formats", default="")
    parser.add_argument("--sequences", default="64,32,128")
    parser.add_argument("--search-memory", default="", help="a model that does not fit is streamed")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    n_calibration, n_held_out, length = map(int, given.sequences.split(","))
    asked = bw.Settings(
        given.model,
        calibration=given.calibration,
        held_out=given.held_out,
        formats=tuple(name for name in given.formats.split(",") if name),
        n_calibration=n_calibration,
        n_held_out=n_held_out,
        sequence_length=length,
        price_rows=ALL_ROWS,
        disk_limit_bytes=_NO_LIMIT,
        search_memory_bytes=bw.parse_budget(given.search_memory).size_bytes(0) if given.search_memory else 0,
    )
    budgets = [bw.parse_budget(text) for text in given.budgets.split(",")]
    seeds, rows, path = [*map(int, given.seeds.split(","))], given.rows.split(","), given.out / _SEEDS
    known, texts = read(path), {budget.text for budget in budgets}
    if missing := [seed for seed in seeds if any((seed, name) not in known or not texts <= known[seed, name].whole.keys() for name in rows)]:
        run = set_up(asked, given.out / "run", device="cpu", progress=Silent())
        for seed in missing:
            for found in compared(run, seed, rows, budgets):
                with path.open("a") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
    known = read(path)
    report([known[seed, name] for seed in seeds for name in rows], [budget.text for budget in budgets])


def read(path: Path) -> dict[tuple[int, str], Found]:
    """Read the lines that are there; the last one of a seed and rows counts, and one that was cut off does not."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [Found(**json.loads(line)) for line in lines if line.endswith("\n")]
    return {(each.seed, each.rows): each for each in found}


def compared(run: LoadedRun, seed: int, rows: Sequence[str], budgets: Sequence[Budget]) -> Iterable[Found]:
    """Price a model by all rows and by samples, and measure the optimum of each at every budget."""
    everything = whole_space(run)
    whole, *samples = (price(priced_by(run, seed, name), everything) for name in (ALL_ROWS, *rows))
    chosen = [[optimum(table, budget) for budget in budgets] for table in (whole, *samples)]
    of_whole, *of_samples = measured(run, everything, chosen)
    texts = [budget.text for budget in budgets]
    for name, sample, values in zip(rows, samples, of_samples, strict=True):
        of_budgets = (dict(zip(texts, each, strict=True)) for each in (of_whole, values))
        yield Found(seed, name, saving(whole, sample), ratios(whole, sample), *of_budgets)


def priced_by(run: LoadedRun, seed: int, rows: str) -> LoadedRun:
    """Return the run with other rows to price by. Rows are drawn with equal chances where prices are no products of gradients, which `price` asks
    for by itself.
    """
    number = "" if rows in (DEFAULT, UNIFORM) else rows
    sensitivity = "weight" if rows == UNIFORM else run.settings.sensitivity
    return replace(run, settings=replace(run.settings, seed=seed, price_rows=number, sensitivity=sensitivity))


def optimum(priced: Priced, budget: Budget) -> Choice:
    """Return the best choice by the prices."""
    return solve(priced.space, priced.table, 8 * budget.size_bytes(priced.space.n_weights)).choice


def price(run: LoadedRun, everything: Space) -> Priced:
    """Quantize and price a model, and count."""
    _ = run.levels.importance
    began = time.process_time()
    distortion: Distortion = distortion_of(run, everything) if run.settings.price_rows == ALL_ROWS else quantized_distortion(run, everything)
    quantized, space = time.process_time(), everything.narrowed(distortion.worth_offering(everything))
    subject = subject_of(run, space)
    table = np.where(space.offered, proxy_named("gradient").price(subject, distortion), np.inf)
    swept, rows = time.process_time(), priced_rows(run, everything) or all_rows(run.levels)
    tried = [(unit, form) for unit, row in zip(space.units, ~np.isnan(distortion.plain), strict=True) for form in np.flatnonzero(row)]
    n_quantized = sum(rows.packed(t).n_weights for unit, form in tried for t in unit.tensors if space.formats[form].name != t.stored)
    products = gradient_products(subject)
    prices = gradient_table(products)
    errors = products.sampling_errors()[prices > 0] / prices[prices > 0]
    return Priced(space, table, prices, quantized - began, swept - quantized, n_quantized, float(np.median(errors)))


def measured(run: LoadedRun, space: Space, chosen: Sequence[Sequence[Choice]]) -> list[list[list[float]]]:
    """Measure the divergence by sequence of held-out text of every choice, each once; the run keeps it."""
    with swapping(run.model) as swapper, referenced_if_needed(run, run.texts.held_out, swapper.restore) as reference:
        load = choice_loader(swapper, run.model, run.levels, space)
        evaluator = Evaluator(run.model, load, reference=reference, objectives=(KullbackLeibler(),), store=run.store)
        return [[evaluator(choice, evaluator.n_sequences).by_sequence[:, 0].tolist() for choice in of_table] for of_table in chosen]


def saving(whole: Priced, few: Priced) -> str:
    """Describe what a sample took beside all rows."""
    weights = f"{few.n_quantized / 1e6:.2f} of {whole.n_quantized / 1e6:.2f} million weights quantized"
    seconds = f"{few.quantizing:.1f} of {whole.quantizing:.1f} s, sweep {few.sweep:.1f} of {whole.sweep:.1f} s"
    return f"{weights} in {seconds}; relative standard error of a price {100 * few.error:.0f} %"


def ratios(whole: Priced, few: Priced) -> str:
    """Describe the sum of the prices of all rows over that of the sample by format, 1 where errors of different rows are independent."""
    both = (whole.prices > 0) & (few.prices > 0)
    found = {f: whole.prices[both[:, f], f].sum() / few.prices[both[:, f], f].sum() for f in np.flatnonzero(both.any(axis=0))}
    return ", ".join(f"{whole.space.formats[f].name} {ratio:.2f}" for f, ratio in found.items())


def report(results: Sequence[Found], budgets: Sequence[str]) -> None:
    """Print the seeds, and by rows the mean over all budgets and seeds."""
    console, shares = Console(width=150), dict[str, list[float]]()
    console.print("rows     seed    budget       all rows         sample   difference  in errors")
    for found in results:
        name = found.rows
        for told in (found.saving, f"all rows' prices over the sample's: {found.ratios}"):
            console.print(f"{name:8s} {found.seed:4d} {told}", highlight=False)
        for budget in budgets:
            best, other = np.array(found.whole[budget]), np.array(found.sample[budget])
            difference, error = float((other - best).mean()), standard_error(other - best)
            shares.setdefault(name, []).append(difference / best.mean())
            told = f"{best.mean():7.4f} ± {standard_error(best):.4f} {other.mean():14.4f} {difference:+12.4f}"
            console.print(f"{name:8s} {found.seed:4d} {budget:>9s} {told} {difference / max(error, 1e-12):+10.2f}", highlight=False)
    for name, of_rows in shares.items():
        mean, error = 100 * np.mean(of_rows), 100 * standard_error(np.array(of_rows))
        console.print(f"{name} rows: divergence {mean:+.1f} ± {error:.1f} % over {len(of_rows)} budgets and seeds", highlight=False)


if __name__ == "__main__":
    main()
