"""Plans from prices of a sample of rows against plans from prices of all rows, at several budgets and seeds, and what the sample saves.

For each seed and budget both optima are measured on the same held-out text; the last column is their paired difference in its standard errors, below
zero where the sample's plan is better. Seconds are of the processor, for quantizing and the sweep.

usage: python benchmarks/price_rows.py MODEL --budgets 8.2bpw,8.8bpw --seeds 0,1,2 --rows 16,32 --out FOLDER [--calibration TEXT] [--formats NAMES]
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import bitwright as bw
from bitwright.compress import all_rows, choice_loader, swapping
from bitwright.objectives import KullbackLeibler, Reference, standard_error
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.price_table import distortion_of, priced, subject_of
from bitwright.pipeline.pricing.priced_rows import priced_rows
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.settings import ALL_ROWS
from bitwright.predictors import gradient_products
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Choice, Space

Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Priced:
    """Table of a run, with its prices before shrinkage, the seconds and quantized weights that it took, and the median relative standard error of its
    prices from the sample.
    """

    space: Space
    table: Table
    prices: Table
    seconds: float
    n_quantized: int
    error: float


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budgets", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default="")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--formats", default="")
    parser.add_argument("--sequences", default="64,32,128")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    n_calibration, n_held_out, length = map(int, given.sequences.split(","))
    asked = bw.Settings(
        given.model,
        calibration=given.calibration,
        formats=tuple(name for name in given.formats.split(",") if name),
        n_calibration=n_calibration,
        n_held_out=n_held_out,
        sequence_length=length,
    )
    budgets = [bw.parse_budget(text) for text in given.budgets.split(",")]
    console, found = Console(width=150), dict[str, list[float]]()
    console.print("rows   seed    budget       all rows         sample   difference  in errors")
    for seed in map(int, given.seeds.split(",")):
        whole = loaded(replace(asked, seed=seed, price_rows=ALL_ROWS), given.out / f"{ALL_ROWS}-{seed}")
        of_all = price(whole)
        samples = {rows: price(loaded(replace(asked, seed=seed, price_rows=rows), given.out / f"{rows}-{seed}")) for rows in given.rows.split(",")}
        for rows, of_sample in samples.items():
            console.print(f"{rows or 'auto':6s} {saving(of_all, of_sample)}", highlight=False)
            console.print(f"{rows or 'auto':6s} prices of all rows over those of the sample: {ratios(of_all, of_sample)}", highlight=False)
        with measuring(whole, of_all.space) as nats:
            for budget in budgets:
                bits = 8 * budget.size_bytes(of_all.space.n_weights)
                best = nats(solve(of_all.space, of_all.table, bits).choice)
                for rows, of_sample in samples.items():
                    other = nats(solve(of_sample.space, of_sample.table, bits).choice)
                    difference, error = float((other - best).mean()), standard_error(other - best)
                    found.setdefault(rows, []).append(difference / best.mean())
                    told = f"{best.mean():7.4f} ± {standard_error(best):.4f} {other.mean():14.4f} {difference:+12.4f}"
                    console.print(f"{rows or 'auto':6s} {seed:4d} {budget.text:>9s} {told} {difference / max(error, 1e-12):+10.2f}", highlight=False)
    for rows, shares in found.items():
        mean, error = np.mean(shares), standard_error(np.array(shares))
        console.print(
            f"{rows or 'auto'} rows: divergence {100 * mean:+.1f} ± {100 * error:.1f} % over {len(shares)} budgets and seeds", highlight=False
        )


def loaded(settings: bw.Settings, folder: Path) -> LoadedRun:
    """Load the model for a run in `folder`."""
    return set_up(settings, folder, device="cpu", progress=Silent())


def price(run: LoadedRun) -> Priced:
    """Quantize and price a model, and count."""
    everything = whole_space(run)
    _ = run.levels.importance
    began = time.process_time()
    distortion = distortion_of(run, everything)
    space = everything.narrowed(distortion.worth_offering(everything))
    table = priced(run, "gradient", space=space, distortion=distortion)
    seconds, rows = time.process_time() - began, priced_rows(run, everything) or all_rows(run.levels)
    tried = [(unit, form) for unit, row in zip(space.units, ~np.isnan(distortion.plain), strict=True) for form in np.flatnonzero(row)]
    n_quantized = sum(rows.packed(t).n_weights for unit, form in tried for t in unit.tensors if space.formats[form].name != t.stored)
    products = gradient_products(subject_of(run, space))
    prices = gradient_table(products)
    errors = products.sampling_errors()[prices > 0] / prices[prices > 0]
    return Priced(space, np.where(np.isnan(table), np.inf, table), prices, seconds, n_quantized, float(np.median(errors)))


def saving(whole: Priced, few: Priced) -> str:
    """Describe what a sample took beside all rows."""
    weights = f"{few.n_quantized / 1e6:.2f} of {whole.n_quantized / 1e6:.2f} million weights quantized"
    return f"{weights}, {few.seconds:.1f} of {whole.seconds:.1f} s; relative standard error of a price {100 * few.error:.0f} %"


def ratios(whole: Priced, few: Priced) -> str:
    """Describe the sum of the prices of all rows over that of the sample by format, 1 where errors of different rows are independent."""
    both = (whole.prices > 0) & (few.prices > 0)
    found = {f: whole.prices[both[:, f], f].sum() / few.prices[both[:, f], f].sum() for f in np.flatnonzero(both.any(axis=0))}
    return ", ".join(f"{whole.space.formats[f].name} {ratio:.2f}" for f, ratio in found.items())


@contextmanager
def measuring(run: LoadedRun, space: Space) -> Iterator[Callable[[Choice], Table]]:
    """Open the held-out text of a run, for as long as the block lasts, to the divergence by sequence of choices, each measured once."""
    reference, known = Reference(run.model, run.texts.held_out, scratch=run.folder, progress=Silent()), dict[bytes, Table]()
    with swapping(run.model) as swapper:
        load = choice_loader(swapper, run.model, run.levels, space)

        def measure(choice: Choice) -> Table:
            if choice.tobytes() not in known:
                load(choice)
                known[choice.tobytes()] = reference.measure(run.model, (KullbackLeibler(),))[:, 0]
            return known[choice.tobytes()]

        yield measure
    reference.discard()


if __name__ == "__main__":
    main()
