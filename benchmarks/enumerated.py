"""Compare the default search with the true front, where every choice can be measured.

Nine matrices of a model in three formats are 19,683 choices. All of them are measured on the text that is searched on, so the true front and the true
best choice of every budget are known; everything else of the model stays as it is stored. The default search then gets a few evaluations along the
front, and as many for each of several budgets. Hypervolumes are those of (divergence, bits of the nine matrices), with 1.01 times the largest of both
as reference.

    python benchmarks/enumerated.py MODEL --calibration cal.txt --out FOLDER

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.methods.by_name import method_named
from bitwright.objectives import KullbackLeibler
from bitwright.pipeline import Search, Settings
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.run_space import price
from bitwright.pipeline.searching.ask_tell_loop import Meter, run_strategy
from bitwright.pipeline.searching.model_problem import open_problem
from bitwright.progress import Silent
from bitwright.search import hypervolume, nondominated, solve

KEPT = "token_embd*,blk.[2-9]*,blk.1.attn_[kvo]*,blk.1.ffn_gate*,blk.1.ffn_up*"  # block 0, and q and down of block 1, are left


def area(nats: NDArray[np.float64], bits: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Dominated share of the box up to the reference."""
    values = np.column_stack([nats, bits])
    return hypervolume(values[nondominated(values)], reference) / float(reference.prod())


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder of weights that were never quantized, of five blocks or fewer")
    parser.add_argument("--calibration", required=True, help="text to search on")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--formats", default="INT2_G32,INT3_G32,INT4_G32", help="default: %(default)s")
    parser.add_argument("--skip", default=KEPT, help="tensors to leave unquantized (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--evaluations", default="12,25,50,100", help="of the default search (default: %(default)s)")
    parser.add_argument("--budgets", default="0.2,0.4,0.6,0.8", help="shares of the way from the smallest to the largest (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(
        args.model, "integers", tuple(args.formats.split(",")), args.calibration, n_calibration=args.sequences, n_held_out=args.sequences,
        sequence_length=args.length, seed=args.seed, skip=tuple(args.skip.split(",")),
    )  # fmt: skip
    bench = set_up(settings, args.out, device="cpu", progress=Silent())
    run = price(bench)
    space, auto = run.space, method_named("auto")
    search = Search(auto, objectives=(KullbackLeibler(),))
    with open_problem(bench, run, search, Meter()) as (problem, evaluator):
        searched = {}
        for n in map(int, args.evaluations.split(",")):
            along = run_strategy(
                auto.for_front(problem, max(2, n // 4)), evaluator, search=replace(search, evaluations=n), meter=Meter(), progress=Silent()
            )
            searched[n] = np.array([measured.choice for measured, _ in along.steps])
        extremes = space.total_bits(np.array([space.smallest(), space.largest()]))
        budgets = {share: int(np.interp(share, [0, 1], extremes)) for share in map(float, args.budgets.split(","))}
        within = {
            share: run_strategy(
                auto.for_budget(problem, bits), evaluator, search=replace(search, evaluations=max(searched)), meter=Meter(), progress=Silent()
            )
            for share, bits in budgets.items()
        }
        options = [np.flatnonzero(row) for row in space.offered]
        everything = np.array(list(product(*options)), dtype=np.int64)
        nats = np.array([evaluator(choice, evaluator.n_sequences).first.value for choice in everything])
    bits = (space.total_bits(everything) - space.fixed_bits).astype(np.float64)
    reference = 1.01 * np.array([nats.max(), bits.max()])
    true, value = area(nats, bits, reference), {choice.tobytes(): nat for choice, nat in zip(everything, nats, strict=True)}
    print(f"{len(space.units)} matrices, {len(everything):,} choices: the true front has a hypervolume of {true:.5f}")
    print(f"{'front':10}{'evaluations':>12}{'of the true hypervolume':>26}")
    for choices in searched.values():
        found = np.array([value[choice.tobytes()] for choice in choices])
        sizes = (space.total_bits(choices) - space.fixed_bits).astype(np.float64)
        print(f"{'auto':10}{len(choices):>12}{area(found, sizes, reference) / true:>26.4f}")
    print(f"{'budget':10}{'evaluations':>12}{'true best':>12}{'auto':>10}{'ratio':>8}{'table alone':>13}{'rank of auto':>14}")
    for share, explored in within.items():
        fits = bits + space.fixed_bits <= budgets[share]
        chosen = np.array([measured.choice for measured, _ in explored.steps])
        best = min(value[choice.tobytes()] for choice in chosen if space.total_bits(choice) <= budgets[share])
        table = value[solve(space, run.table, budgets[share]).choice.tobytes()]
        least, rank = nats[fits].min(), int((nats[fits] < best).sum()) + 1
        print(f"{share:<10.0%}{len(chosen):>12}{least:>12.5f}{best:>10.5f}{best / least:>8.3f}{table / least:>13.3f}{rank:>7} of {fits.sum():,}")


if __name__ == "__main__":
    main()
