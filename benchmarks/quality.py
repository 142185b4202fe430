"""Compare Bitwright's plans with other allocations at the same size. Everything is measured on held-out text.

Lanes for each budget, all with the same codec, importance matrix and tokens, and bytes counted alike:
    plan          the exact knapsack on the gradient table, which `bitwright plan` proposes first; nothing is chosen by what is measured here
    raw gradient  the same without shrinkage, the second opinion that `bitwright plan` measures too
    importance    the exact knapsack on the importance-weighted error table
    weight        the exact knapsack on the plain weight error table
    prior         the exact knapsack on the prior by names, learned on published tables
    uniform       every unit in one format: the largest that fit, and the next larger ones, which are over the budget
    llama.cpp     its own mixes, tensor by tensor as its quantizer wrote them (`rivals/llama_cpp_mixes.py`), likewise

Differences to the plan are paired: the mean over sequences of the difference on the same sequence, and its standard error. Everything is kept in
the folder and not repeated, so an interrupted run goes on where it was, and a second call may add budgets and mixes.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Measurement, standard_error
from bitwright.pipeline import Run, Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.candidates import budget_bytes, candidates
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.price_table import distortion_of
from bitwright.pipeline.pricing.run_space import price, uniforms, whole_space
from bitwright.predictors import importance_error_table
from bitwright.predictors.sensitivity.names.prior import prior_table
from bitwright.predictors.sensitivity.weights.weight_error import weight_error_table
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Choice, Space, parse_budget

PLAN = "plan"
Mixes = Mapping[str, Mapping[str, Any]]  # name → "formats" (tensor → type) and "size_bytes"


@dataclass(frozen=True, eq=False)
class Lane:
    """A named choice that is compared at a budget of `budget_bytes`."""

    budget_bytes: int
    name: str
    choice: Choice
    size_bytes: int

    @property
    def fits(self) -> bool:
        """Return whether the file is within its budget."""
        return self.size_bytes <= self.budget_bytes


def other_tables(bench: LoadedRun) -> dict[str, NDArray[np.float64]]:
    """The tables `(n_units, n_formats)` that need no gradients."""
    space = whole_space(bench)
    distortion = distortion_of(bench, space)
    prior = prior_table(bench.model.tensors, space.units, relative_error=distortion.plain)
    return {"importance": importance_error_table(distortion), "weight": weight_error_table(distortion), "prior": prior}


def mix_choice(space: Space, formats: Mapping[str, str]) -> Choice:
    """Return the format that a mix gives every unit, offered or not; llama.cpp never splits a unit of a dense model."""
    index = {form.name: i for i, form in enumerate(space.formats)}
    return np.array([index[formats[unit.tensors[0].name]] for unit in space.units], dtype=np.int64)


def nearest(space: Space, named: Mapping[str, Choice], size_bytes: int) -> dict[str, Choice]:
    """The largest of the choices that fit and the smallest of those that do not; of several of one size, all."""
    sizes = {name: space.total_bytes(choice) for name, choice in named.items()}
    below = max((size for size in sizes.values() if size <= size_bytes), default=-1)
    above = min((size for size in sizes.values() if size > size_bytes), default=-1)
    return {name: named[name] for name, size in sizes.items() if size in (below, above)}


def lanes(bench: LoadedRun, run: Run, *, budgets: list[int], mixes: Mixes) -> list[Lane]:
    """All that is compared, budget by budget."""
    space = run.space
    theirs = {f"llama.cpp {name}": mix_choice(space, mix["formats"]) for name, mix in mixes.items()}
    tables, found = other_tables(bench), []
    for size_bytes in budgets:
        ours = {PLAN: candidates(run, size_bytes)["knapsack"], "raw gradient": solve(space, run.second_table, 8 * size_bytes).choice}
        others = {name: solve(space, table, 8 * size_bytes).choice for name, table in tables.items()}
        named = ours | others | nearest(space, uniforms(run), size_bytes) | nearest(space, theirs, size_bytes)
        found += [Lane(size_bytes, name, choice, space.total_bytes(choice)) for name, choice in named.items()]
    return found


def compared(lane: Lane, plan: Measurement, measured: Measurement) -> dict[str, Any]:
    """Return a row of the table."""
    difference = np.array(measured.by_sequence[:, 0]) - np.array(plan.by_sequence[:, 0])
    return {
        "budget_bytes": lane.budget_bytes,
        "lane": lane.name,
        "size_bytes": lane.size_bytes,
        "fits": lane.fits,
        "nats_per_token": measured.nats_per_token,
        "standard_error": measured.standard_error,
        "above_plan": float(difference.mean()),
        "above_plan_standard_error": standard_error(difference),
        "perplexity": measured.perplexity,
        "top1_agreement": measured.top1_agreement,
        "sequence_nats": list(measured.by_sequence[:, 0]),
    }


def show(rows: list[dict[str, Any]], *, reference_perplexity: float, n_tokens: int) -> None:
    """Print the table of lanes."""
    print(f"{n_tokens} held-out tokens; perplexity of the original {reference_perplexity:.3f}; * is over the budget")
    print(f"{'budget MB':>9}  {'lane':20}{'MB':>9}   {'nats/token':>16}   {'above the plan':>18}{'perplexity':>12}{'top-1':>8}")
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:9.3f}{' ' if row['fits'] else '*'}"
        nats = f"{row['nats_per_token']:.4f} ± {row['standard_error']:.4f}"
        above = "" if row["lane"] == PLAN else f"{row['above_plan']:+.4f} ± {row['above_plan_standard_error']:.4f}"
        figures = f"{row['perplexity']:12.3f}{row['top1_agreement']:8.3f}"
        print(f"{row['budget_bytes'] / 1e6:9.1f}  {row['lane']:20}{size}  {nats:>16}   {above:>18}{figures}")


def read_mixes(path: Path | None) -> Mixes:
    """Read the mixes of llama.cpp from a JSON file, none without one."""
    found: Mixes = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file of weights that were never quantized")
    parser.add_argument("--calibration", required=True, help="text to price on")
    parser.add_argument("--held-out", required=True, help="text to measure on")
    parser.add_argument("--budgets", default="85MB,90MB,100MB,110MB", help="sizes of the file (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run goes on there")
    parser.add_argument("--mixes", type=Path, help="what rivals/llama_cpp_mixes.py wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the labels of the gradient sweep (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where torch works (default: %(default)s)")
    args = parser.parse_args()

    settings = Settings(args.model, calibration=args.calibration, held_out=args.held_out, seed=args.seed)
    bench = set_up(settings, args.out, device=args.device, progress=Silent())
    run = price(bench)
    budgets = [budget_bytes(parse_budget(text), n_weights=run.space.n_weights, original_bytes=run.original_bytes) for text in args.budgets.split(",")]
    found = lanes(bench, run, budgets=budgets, mixes=read_mixes(args.mixes))
    measure(bench, run, list({tuple(lane.choice.tolist()): lane.choice for lane in found}.values()))
    known = run.measurements
    plans = {lane.budget_bytes: known[tuple(lane.choice.tolist())] for lane in found if lane.name == PLAN}
    rows = [compared(lane, plans[lane.budget_bytes], known[tuple(lane.choice.tolist())]) for lane in found]
    perplexity = float(run.store.text("reference perplexity"))
    show(rows, reference_perplexity=perplexity, n_tokens=bench.texts.held_out.n_tokens)
    record = {"reference_perplexity": perplexity, "n_tokens": bench.texts.held_out.n_tokens, "rows": rows, "stages": run.store.stages()}
    (args.out / "quality.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
