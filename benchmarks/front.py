"""Count the evaluations that a front of size against divergence takes: AMQ's loop as published against the default search.

AMQ (Lee et al., EMNLP 2025) as published: 2, 3 and 4 bits, units pinned to 4 bits whose drop to 2 bits from all-4 diverges by more than twice the
median, 250 choices of its design, then 200 rounds of a cubic RBF, NSGA-II on the prediction and 50 choices spread along the size: 10,250 evaluations.
The default search gets one in fifty of them, and the same text. The hypervolume is that of (divergence, bits) with AMQ's own reference, 1.01 times
the largest of its first design in both, and is printed for the text that was searched on and for held-out text.

    python benchmarks/front.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
import json
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.methods.by_name import method_named
from bitwright.objectives import Evaluator, KullbackLeibler
from bitwright.pipeline import Search, Settings
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.run_space import price
from bitwright.pipeline.searching.ask_tell_loop import Meter, SearchResult, run_strategy
from bitwright.pipeline.searching.model_problem import open_problem
from bitwright.predictors.plans.radial_basis import RadialBasisPredictor
from bitwright.predictors.sensitivity.measured.one_at_a_time import measured_table_at
from bitwright.progress import Silent
from bitwright.search import Problem, Rounds, clustered, hypervolume, nondominated, predicted_front
from bitwright.spaces import Space

PINNED = 2.0  # times the median


@dataclass(frozen=True, eq=False)
class Points:
    """Measured choices: their divergence on the text that was searched on, and their bits."""

    nats: NDArray[np.float64]
    bits: NDArray[np.float64]

    def dominated(self, reference: NDArray[np.float64]) -> float:
        """Hypervolume of the points as a share of the reference's box."""
        return hypervolume(np.column_stack([self.nats, self.bits]), reference) / float(reference.prod())


def pinned(evaluator: Evaluator, space: Space) -> Space:
    """AMQ's pruning: what alone diverges by more than twice the median keeps its largest format."""
    largest, smallest = space.largest(), space.smallest()

    def value(choice: NDArray[np.int64]) -> float:
        return evaluator(choice, evaluator.n_sequences).first.value

    table = measured_table_at(space, largest, value, progress=Silent())
    drop = table[np.arange(len(smallest)), smallest]
    pins = drop > PINNED * np.median(drop)
    offered = space.offered.copy()
    offered[pins] = np.arange(space.offered.shape[1]) == largest[pins][:, None]
    return space.narrowed(offered)


def amq(problem: Problem, evaluator: Evaluator, args: argparse.Namespace, search: Search) -> tuple[SearchResult, Space]:
    """Search of AMQ for the front, and the space that its pruning left."""
    space = pinned(evaluator, problem.space)
    rounds = Rounds(args.n_first, args.n_rounds, args.n_each, clustered)
    strategy = predicted_front(replace(problem, space=space), RadialBasisPredictor(space.offered).fit, rounds)
    return run_strategy(strategy, evaluator, search=replace(search, evaluations=inf), meter=Meter(), progress=Silent()), space


def points(space: Space, explored: SearchResult, n: int) -> Points:
    """The first `n` steps."""
    steps = explored.steps[:n]
    bits = space.total_bits(np.array([measured.choice for measured, _ in steps])) - space.fixed_bits
    return Points(np.array([measured.first.value for measured, _ in steps]), bits.astype(np.float64))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder of weights that were never quantized")
    parser.add_argument("--calibration", required=True, help="text to search on")
    parser.add_argument("--held-out", required=True, help="text to judge by")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--formats", default="INT2_G32,INT3_G32,INT4_G32", help="default: %(default)s")
    parser.add_argument("--sequences", type=int, default=8, help="of the text that is searched on (default: %(default)s)")
    parser.add_argument("--held-out-sequences", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--n-first", type=int, default=250, help="AMQ's design (default: %(default)s)")
    parser.add_argument("--n-rounds", type=int, default=200, help="AMQ's rounds (default: %(default)s)")
    parser.add_argument("--n-each", type=int, default=50, help="evaluations of a round (default: %(default)s)")
    parser.add_argument("--share", type=int, default=50, help="the default search gets one in so many evaluations (default: %(default)s)")
    parser.add_argument("--points", type=int, default=40, help="of the predicted front that the default search begins with (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(
        args.model, "integers", tuple(args.formats.split(",")), args.calibration, args.held_out, n_calibration=args.sequences,
        n_held_out=args.held_out_sequences, sequence_length=args.length, seed=args.seed, skip=("token_embd*",),
    )  # fmt: skip
    bench = set_up(settings, args.out, device="cpu", progress=Silent())
    run = price(bench)
    default = Search(method_named("auto"), evaluations=(args.n_first + args.n_rounds * args.n_each) // args.share, objectives=(KullbackLeibler(),))
    with open_problem(bench, run, default, Meter()) as (problem, evaluator):
        strategy = default.method.for_front(problem, args.points)
        ours = run_strategy(strategy, evaluator, search=default, meter=Meter(), progress=Silent())
        theirs, space = amq(problem, evaluator, args, default)
    first = points(space, theirs, args.n_first)
    reference = 1.01 * np.array([first.nats.max(), first.bits.max()])
    n_weights = sum(unit.n_weights for unit in space.units)
    print(f"{'':14}{'evaluations':>12}{'hypervolume':>13}{'share of AMQ':>14}{'best at 3 bits':>16}")
    final = points(space, theirs, len(theirs.steps)).dominated(reference)
    for name, explored in (("AMQ", theirs), ("auto", ours)):
        for n in sorted({25, 50, 100, 205, 250, 500, 1000, 2500, 5000, len(explored.steps)}):
            if n <= len(explored.steps):
                those = points(space, explored, n)
                cell = those.nats[those.bits <= 4.04 * n_weights].min()
                print(f"{name:14}{n:>12,}{those.dominated(reference):>13.5f}{those.dominated(reference) / final:>14.4f}{cell:>16.4f}", flush=True)
    fronts = {}
    for name, explored in (("AMQ", theirs), ("auto", ours)):
        those = points(space, explored, len(explored.steps))
        rows = np.flatnonzero(nondominated(np.column_stack([those.nats, those.bits])))
        rows = rows[np.argsort(those.bits[rows])][:: max(1, len(rows) // 40)]
        measure(bench, run, [np.array(explored.steps[i][0].choice) for i in rows])
        known = run.measurements
        nats = np.array([known[tuple(explored.steps[i][0].choice)].nats_per_token for i in rows])
        fronts[name] = Points(nats, those.bits[rows])
        print(f"{name} on held-out text, {len(rows)} points of its front: hypervolume {fronts[name].dominated(reference):.5f}")
    record = {name: {"nats": front.nats.tolist(), "bits": front.bits.tolist()} for name, front in fronts.items()}
    (args.out / "front.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
