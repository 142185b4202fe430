"""What is gained where every expert of a mixture has a format of its own, against one format for all experts of a layer?

Only experts are decided about (gate, up and down of an expert together); everything else stays as it is stored. A budget of b is what uniform codes
of b bits take, between two widths in proportion. At each budget and the same bytes:

    per layer       of all plans with one format for the experts of a layer, measured one by one on the text that is searched on, the best
    per expert      the default method with `--evaluations`, on the same text; and its table alone, before anything is measured

Both are then measured on held-out text, paired. Below, the ranking of experts by what the table expects of their coarsest format is compared with
zeroing experts one at a time.

    python benchmarks/experts.py MOE --calibration cal.txt --held-out held.txt --out FOLDER

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bitwright.compress import matrix_shape
from bitwright.objectives import Divergence, KullbackLeibler, Reference, standard_error
from bitwright.pipeline import Effort, Run, Search, Settings, method_named
from bitwright.pipeline.campaign import Desk, desk, search_within
from bitwright.pipeline.searching import price
from bitwright.pipeline.workbench import Workbench, set_up
from bitwright.predictors import summed
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Choice, Choices, Tensor, by_layer, tied


def budgets(run: Run, code_bits: list[float]) -> dict[float, int]:
    """Budgets in bits of the whole file by bits of a code; bits per weight of a format less what its scales take is its width."""
    space = run.prices.everything
    widths = {form.bits: int(space.total_bits(space.uniform(form))) for form in space.formats if form.name in run.settings.formats}
    return {bits: int(np.interp(bits, sorted(widths), [widths[b] for b in sorted(widths)])) // 8 * 8 for bits in code_bits}


def plans_of_layers(run: Run) -> Choices:
    """Every choice `(n, n_units)` with one format for the experts of a layer."""
    tie = tied(run.prices.everything, by_layer)
    return tie.expanded(np.array(list(product(*(np.flatnonzero(row) for row in tie.coarse.offered))), dtype=np.int64))


def best_of_layers(at: Desk, plans: Choices, budget_bits: int) -> Choice:
    """The best of those that fit, by measuring all that fit."""
    fitting = plans[at.run.prices.space.total_bits(plans) <= budget_bits]
    values = [at.evaluator(plan, at.evaluator.n_sequences).estimates[0].value for plan in fitting]
    return fitting[int(np.argmin(values))]


def zeroed(bench: Workbench, run: Run) -> NDArray[np.float64]:
    """Divergence in nats per token with the weights of one expert at a time set to zero `(n_units,)`."""
    reference = Reference(bench.model, bench.texts.calibration, scratch=bench.folder, progress=Silent())
    divergence = Divergence(bench.model, bench.levels, space=run.prices.space, reference=reference)

    def without(tensors: tuple[Tensor, ...]) -> float:
        return divergence.of_weights({t.name: lambda t=t: np.zeros(matrix_shape(t), dtype=np.float32) for t in tensors})

    return np.array([without(unit.tensors) for unit in run.prices.space.units])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder of a mixture of experts, never quantized")
    parser.add_argument("--calibration", required=True, help="text to search on")
    parser.add_argument("--held-out", required=True, help="text to judge by")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--formats", default="INT2_G32,INT3_G32,INT4_G32,INT6_G32", help="default: %(default)s")
    parser.add_argument("--keep", default="token_embd*,*attn*", help="all but experts (default: %(default)s)")
    parser.add_argument("--budgets", default="2.25,2.5,3,3.5", help="bits of a code (default: %(default)s)")
    parser.add_argument("--evaluations", type=int, default=100, help="of the default method (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--held-out-sequences", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(
        args.model, "native", tuple(args.formats.split(",")), args.calibration, args.held_out, n_calibration=args.sequences,
        n_held_out=args.held_out_sequences, sequence_length=args.length, seed=args.seed, keep=tuple(args.keep.split(",")),
    )  # fmt: skip
    bench = set_up(settings, args.out, device="cpu", progress=Silent())
    run = price(bench)
    space, method = run.prices.space, Search(method_named("auto"), Effort(args.evaluations), (KullbackLeibler(),))
    asked = budgets(run, [float(bits) for bits in args.budgets.split(",")])
    plans = plans_of_layers(run)
    with desk(bench, run, method) as at:
        of_layers = {bits: best_of_layers(at, plans, budget) for bits, budget in asked.items()}
    print(f"{len(space.units)} experts; {len(plans):,} plans with one format a layer, all measured where they fit")
    print(f"{'bits':>6}{'bytes':>10}{'per layer':>12}{'table':>10}{'per expert':>12}{'ratio':>8}{'paired difference':>22}{'evaluations':>13}")
    for bits, budget in asked.items():
        explored = search_within(bench, run, budget_bits=budget, search=method)
        full = explored.trials.only(explored.trials.n_sequences == explored.trials.n_sequences.max())
        full = full.only(space.total_bits(full.choices) <= budget)
        ours, table = full.choices[full.values[:, 0].argmin()], solve(space, run.prices.table, budget).choice
        bench.measure(run.prices.everything, [of_layers[bits], ours, table])
        theirs, by_table, mine = (run.measurements[tuple(choice.tolist())] for choice in (of_layers[bits], table, ours))
        change = np.array(mine.sequence_nats) - np.array(theirs.sequence_nats)
        told = f"{change.mean():+.4f} ± {standard_error(change):.4f}"
        ratio = mine.nats_per_token / theirs.nats_per_token
        row = f"{theirs.nats_per_token:>12.4f}{by_table.nats_per_token:>10.4f}{mine.nats_per_token:>12.4f}{ratio:>8.3f}"
        print(f"{bits:>6g}{budget // 8:>10,}{row}{told:>22}{explored.spent.evaluations:>13}", flush=True)
    coarsest = space.smallest()
    expected = np.array([summed(run.prices.table[u : u + 1], coarsest[u : u + 1]) for u in range(len(coarsest))])
    print(f"table at the coarsest format against zeroing experts one at a time: Spearman {spearmanr(expected, zeroed(bench, run)).statistic:.3f}")


if __name__ == "__main__":
    main()
