"""Compare predictors on plans that they have not seen. Random plans and plans near the front are measured once; predictors learn from some
of them and are asked for the rest.

Random plans are of all sizes. Near plans come from exchanges of bits around the exact optimum of the table at several sizes, all plans of a size
within half a per cent of it: half of them cost at most 50 % more than the optimum by the table, half at most 6 %, where the search has to choose.
Every predictor learns from half random, half near plans, anew for each draw, and what is printed is the mean over draws:

    random            Spearman's coefficient among the random plans that were held out
    near              the same among all near plans, of all sizes
    one size, 6 %     the mean over sizes of the same among near plans of one size; and among those within 6 % of the optimum
    error             root mean square of log predicted − log measured, random and near
    in 90 %           the share of measured divergences in the predicted 90 % intervals, random and near; all plans are measured on the same
                      sequences, for which they are predicted, so the measurements' noise is not added

Everything that is measured is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.pipeline import Run, Settings
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.run_space import price
from bitwright.predictors import Validation, predictor_named, summed
from bitwright.predictors.plans.by_name import PREDICTORS
from bitwright.predictors.plans.predictor import Predictor
from bitwright.progress import Silent
from bitwright.search import scattered, sizes_between, solve
from bitwright.search.strategies.neighbours import Neighbourhood, all_together
from bitwright.spaces import Choice, Choices, Space

SPREAD = 0.05, 0.95  # of random plans, as shares of the way from the smallest file to the largest
NEAR = 0.10, 0.60, 6  # first and last size of near plans, and how many
SLACK, FAR, CLOSE = 0.005, 0.5, 0.06
TRIES = 400  # walks for each near plan that is wanted


@dataclass(frozen=True, eq=False)
class Plans:
    """Measured `choices` `(n, n_units)`; the number of their size `group` `(n,)`, −1 where random; whether they are within 6 % of the table's
    optimum; `values` and standard `errors` `(n,)`.
    """

    choices: Choices
    group: NDArray[np.int64]
    is_close: NDArray[np.bool_]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """Figures printed for a predictor."""

    random: float
    near: float
    one_size: float
    within_6_percent: float
    random_error: float
    near_error: float
    random_in_90: float
    near_in_90: float
    seconds: float


def near_plans(space: Space, table: NDArray[np.float64], n: int, rng: np.random.Generator) -> list[tuple[Choice, int, bool]]:
    """Return about `n` plans around the table's optima, optima included: each with the number of its size and whether it is close."""
    found: dict[bytes, tuple[Choice, int, bool]] = {}
    for group, size_bytes in enumerate(sizes_between(space, *NEAR)):
        budget = int(8 * size_bytes)
        best = solve(space, table, budget).choice
        walk, least = Neighbourhood(space, budget, all_together), summed(table, best)
        found[best.tobytes()] = best, group, True
        wanted = {True: n // NEAR[2] // 2, False: n // NEAR[2] // 2}
        for _ in range(TRIES * sum(wanted.values())):
            choice = walk.walked(best, int(rng.integers(1, 9)), rng)
            excess = summed(table, choice) / least - 1
            is_close = bool(excess <= CLOSE)
            fits = excess <= FAR and space.total_bits(choice) >= (1 - SLACK) * budget
            if fits and wanted[is_close] > 0 and choice.tobytes() not in found:
                found[choice.tobytes()] = choice, group, is_close
                wanted[is_close] -= 1
    return list(found.values())


def measured(run: Run, random: list[Choice], near: list[tuple[Choice, int, bool]]) -> Plans:
    """The plans with what the run measured."""
    choices = np.array([*random, *(choice for choice, _, _ in near)])
    known = [run.measurements[tuple(choice.tolist())] for choice in choices]
    return Plans(
        choices=choices,
        group=np.array([*(-1 for _ in random), *(group for _, group, _ in near)]),
        is_close=np.array([*(False for _ in random), *(is_close for _, _, is_close in near)]),
        values=np.array([measurement.nats_per_token for measurement in known]),
        errors=np.array([measurement.standard_error for measurement in known]),
    )


def judged(predictor: Predictor, plans: Plans, n_known: int, rng: np.random.Generator) -> Figures:
    """Fit to `n_known` plans, half of them random, and ask for the rest."""
    is_random = plans.group < 0
    parts = (rng.choice(np.flatnonzero(part), n_known // 2, replace=False) for part in (is_random, ~is_random))
    known = np.concatenate(list(parts))
    rest = np.setdiff1d(np.arange(len(plans.values)), known)
    began = time.perf_counter()
    predict = predictor.fit(plans.choices[known], plans.values[known], plans.errors[known])
    seconds = time.perf_counter() - began
    found = Validation(plans.values[rest], np.zeros(len(rest)), *predict(plans.choices[rest]))
    group, is_close = plans.group[rest], plans.is_close[rest]
    random, near = found.among(group < 0), found.among(group >= 0)
    return Figures(
        random=random.spearman,
        near=near.spearman,
        one_size=float(np.nanmean([found.among(group == size).spearman for size in range(NEAR[2])])),
        within_6_percent=float(np.nanmean([found.among((group == size) & is_close).spearman for size in range(NEAR[2])])),
        random_error=_relative(random),
        near_error=_relative(near),
        random_in_90=random.coverage,
        near_in_90=near.coverage,
        seconds=seconds,
    )


def _relative(found: Validation) -> float:
    """Root mean square of log predicted − log measured; a prediction that is not above zero counts as a tenth of the measurement."""
    ratios = np.log(np.maximum(found.means / found.values, 0.1))
    return float(np.sqrt(np.mean(ratios**2)))


def mean_of(drawn: list[Figures]) -> Figures:
    """Mean of each figure."""
    return Figures(*(float(np.mean([asdict(figures)[field.name] for figures in drawn])) for field in fields(Figures)))


def line(name: str, n_known: int, found: Figures) -> str:
    """Return a row of the table."""
    ranks = f"{found.random:9.3f}{found.near:9.3f}{found.one_size:10.3f}{found.within_6_percent:8.3f}"
    errors = f"{found.random_error:9.3f}{found.near_error:8.3f}"
    return f"{name:12}{n_known:6}{ranks}{errors}{found.random_in_90:9.3f}{found.near_in_90:8.3f}{found.seconds:9.2f}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file")
    parser.add_argument("--calibration", required=True, help="text to price on, or `self`")
    parser.add_argument("--held-out", default="", help="text to measure plans on (default: a part of the calibration text)")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run goes on there")
    parser.add_argument("--target", default="integers", help="(default: %(default)s)")
    parser.add_argument("--formats", default="INT2_G32,INT3_G32,INT4_G32,INT6_G32", help="the menu (default: %(default)s)")
    parser.add_argument("--skip", default="token_embd*", help="tensors to leave unquantized, as patterns (default: %(default)s)")
    parser.add_argument("--plans", type=int, default=200, help="random plans to measure, and as many near ones (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--known", default="60", help="numbers of plans to learn from (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=10, help="of the plans to learn from (default: %(default)s)")
    parser.add_argument("--predictors", default=",".join(PREDICTORS), help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the plans, the labels and the draws (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where torch works (default: %(default)s)")
    args = parser.parse_args()

    settings = Settings(
        args.model,
        target=args.target,
        formats=tuple(args.formats.split(",")),
        calibration=args.calibration,
        held_out=args.held_out,
        skip=tuple(args.skip.split(",")),
        sequence_length=args.length,
        seed=args.seed,
    )
    bench = set_up(settings, args.out, device=args.device, progress=Silent())
    run = price(bench)
    space, table, rng = run.space, run.table, np.random.default_rng(args.seed)
    random = [*scattered(space, sizes_between(space, *SPREAD, args.plans), rng=rng)]
    near = near_plans(space, table, args.plans, rng)
    measure(bench, run, [*random, *(choice for choice, _, _ in near)])
    plans = measured(run, random, near)
    _print_head(plans)
    record: dict[str, object] = {}
    for name in args.predictors.split(","):
        for n_known in map(int, args.known.split(",")):
            predictor = predictor_named(name, space, table, seed=args.seed)
            draws = np.random.default_rng(args.seed).spawn(args.draws)
            try:
                found = mean_of([judged(predictor, plans, n_known, each) for each in draws])
            except UserError as error:
                print(f"{name:12}{n_known:6}  {error}")
                continue
            record[f"{name} {n_known}"] = asdict(found)
            print(line(name, n_known, found), flush=True)
    (args.out / "predictors.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def _print_head(plans: Plans) -> None:
    n_random, n_near, n_close = int((plans.group < 0).sum()), int((plans.group >= 0).sum()), int(plans.is_close.sum())
    spread = f"{plans.values.min():.4f} to {plans.values.max():.4f} nats/token ± {np.median(plans.errors / plans.values):.1%}"
    print(f"{n_random} random plans, {n_near} near ones, {n_close} of them within 6 %; {spread}")
    print(f"{'':18}{'Spearman':>36}{'error of log':>17}{'in 90 %':>17}")
    print(f"{'predictor':12}{'known':>6}{'random':>9}{'near':>9}{'one size':>10}{'6 %':>8}", end="")
    print(f"{'random':>9}{'near':>8}{'random':>9}{'near':>8}{'s a fit':>9}")


if __name__ == "__main__":
    main()
