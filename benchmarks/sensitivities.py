"""Compare how sensitivities rank plans. Random plans are measured on held-out text and compared with what each table says of them.

Half of the plans are spread over the sizes; the other half have the same size within 1 %, so that "larger is better" helps no table there. The
full quadratic form ½E(Σ_u⟨g, ΔW_u⟩)², which counts how the errors of units add up, is compared too: it is no table, so no knapsack can use it.

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Measurement, Reference, Tokens
from bitwright.pipeline import Run, Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.price_table import distortion_of, subject_of
from bitwright.pipeline.pricing.run_space import price, whole_space
from bitwright.predictors import fit_scale, gradient_products, importance_error_table, rank_agreement, summed
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.predictors.sensitivity.gradients.sweep import Products
from bitwright.predictors.sensitivity.measured.one_at_a_time import measured_table
from bitwright.predictors.sensitivity.names.prior import prior_table
from bitwright.predictors.sensitivity.text_divergence import one_unit
from bitwright.predictors.sensitivity.weights.weight_error import weight_error_table
from bitwright.progress import Silent
from bitwright.search import scattered
from bitwright.spaces import Choice, Space

Table = NDArray[np.float64]  # (n_units, n_formats)
Score = Callable[[Choice], float]
SPREAD, EQUAL = (0.05, 0.60), 0.20  # sizes of the plans, as shares of the way from the smallest file to the largest


@dataclass(frozen=True)
class Cost:
    """Cost of a table besides the quantized tensors, which every table needs."""

    forward_tokens: int
    backward_tokens: int
    seconds: float


@dataclass(frozen=True)
class Agreement:
    """Agreement of predictions with measured divergences; `low` and `high` bound Spearman's coefficient at 95 %."""

    spearman: float
    low: float
    high: float
    kendall: float
    ratio: float
    ratio_spread: float


def random_plans(space: Space, n_plans: int, *, rng: np.random.Generator) -> list[Choice]:
    """Draw plans: first those spread over the sizes, then those of equal size."""
    smallest, largest = space.total_bytes(space.smallest()), space.total_bytes(space.largest())
    shares = [*np.linspace(*SPREAD, n_plans - n_plans // 2), *[EQUAL] * (n_plans // 2)]
    return list(scattered(space, smallest + np.array(shares) * (largest - smallest), rng=rng))


def one_at_a_time(bench: LoadedRun, space: Space, n_sequences: int) -> tuple[Table, Cost]:
    """The measured table on the first calibration sequences, and what it took over all interruptions."""
    tokens = Tokens(bench.texts.calibration.ids[:n_sequences], bench.texts.calibration.text)
    subject = replace(subject_of(bench, space), tokens=tokens)
    reference = Reference(bench.model, tokens, scratch=bench.folder, progress=bench.progress)
    seconds = np.zeros(space.offered.shape)

    def timed(unit: int, form: int) -> Table:
        began = time.perf_counter()
        nats = one_unit(subject, reference, unit=unit, form=form)
        return np.array([nats, time.perf_counter() - began])

    def of_one(unit: int, form: int) -> float:
        nats, seconds[unit, form] = cached(subject, f"timed single/{unit}/{form}", lambda: timed(unit, form))
        return float(nats)

    table = measured_table(space, of_one, progress=bench.progress)
    return table, Cost(int(space.offered.sum()) * tokens.n_tokens, 0, float(seconds.sum()))


def scores(bench: LoadedRun, run: Run, n_sequences: int) -> dict[str, tuple[Score, Cost]]:
    """Every way to predict a plan's divergence, and its cost; nothing is measured one at a time where `n_sequences` is 0."""
    space, n_tokens = run.space, bench.texts.calibration.n_tokens
    distortion = distortion_of(bench, whole_space(bench))
    weighted = importance_error_table(distortion)
    products = gradient_products(subject_of(bench, space))
    seconds = {name: value for name, value, _, _ in bench.store.stages()}
    importance = Cost(n_tokens, 0, seconds["imatrix"])
    sweep = Cost(n_tokens, n_tokens, seconds["gradient"])
    shrunk = Cost(2 * n_tokens, n_tokens, seconds["imatrix"] + seconds["gradient"])
    found: dict[str, tuple[Score, Cost]] = {
        "weight": (_sum_of(weight_error_table(distortion)), Cost(0, 0, 0.0)),
        "prior": (_sum_of(prior_table(bench.model.tensors, space.units, relative_error=distortion.plain)), Cost(0, 0, 0.0)),
        "importance": (_sum_of(weighted), importance),
        "gradient, raw": (_sum_of(gradient_table(products)), sweep),
        "gradient, shrunk": (_sum_of(shrunk_table(products, weighted)), shrunk),
        "quadratic form": (_quadratic(products), sweep),
    }
    if n_sequences:
        table, cost = one_at_a_time(bench, space, n_sequences)
        found["one at a time"] = (_sum_of(table), cost)
    return found


def _sum_of(table: Table) -> Score:
    return lambda choice: summed(table, choice)


def _quadratic(products: Products) -> Score:
    units = np.arange(products.values.shape[1])
    return lambda choice: float((products.values[:, units, choice].sum(axis=1) ** 2).mean() / (2 * products.n_tokens))


def agreement(predicted: NDArray[np.float64], measured: NDArray[np.float64], *, rng: np.random.Generator) -> Agreement:
    """Return the agreement over the plans `(n_plans,)`; the bounds are from resampling plans."""
    ranks, scale = rank_agreement(predicted, measured, rng=rng), fit_scale(predicted.tolist(), measured.tolist())
    return Agreement(ranks.spearman, ranks.low, ranks.high, ranks.kendall, scale.factor, scale.relative_error)


def report(found: dict[str, tuple[Score, Cost]], plans: list[Choice], measured: list[Measurement], folder: Path) -> None:
    """Print the table and write it with everything it was computed from."""
    nats = np.array([measurement.nats_per_token for measurement in measured])
    equal = slice(len(plans) - len(plans) // 2, None)
    lines: list[str] = []
    record: dict[str, object] = {}
    for name, (score, cost) in found.items():
        predicted = np.array([score(choice) for choice in plans])
        every, alike = (agreement(predicted[part], nats[part], rng=np.random.default_rng(0)) for part in (slice(None), equal))
        record[name] = {"all": asdict(every), "equal size": asdict(alike), "cost": asdict(cost), "predicted": predicted.tolist()}
        lines.append(f"{name:18}{_ranks(every)}{_ranks(alike)}{_ratio(every)}{cost.forward_tokens:12,}{cost.backward_tokens:12,}{cost.seconds:9.0f}")
    sizes = f"{len(plans)} plans, {nats.min():.4f} to {nats.max():.4f} nats/token; {len(plans) // 2} of equal size, "
    print(sizes + f"{nats[equal].min():.4f} to {nats[equal].max():.4f}; measured ± {np.mean([m.standard_error for m in measured]):.4f}")
    print(f"{'':18}{'Spearman, all [95 %]':>25} {'Kendall':>8}{'equal size [95 %]':>25} {'Kendall':>8}{'measured/predicted':>22}", end="")
    print(f"{'forward':>12}{'backward':>12}{'seconds':>9}", *lines, sep="\n")
    record["plans"] = [asdict(measurement) | {"by_sequence": measurement.by_sequence.tolist()} for measurement in measured]
    (folder / "sensitivities.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def _ranks(found: Agreement) -> str:
    return f"{found.spearman:.3f} [{found.low:.3f}, {found.high:.3f}]".rjust(25) + f" {found.kendall:8.3f}"


def _ratio(found: Agreement) -> str:
    return f"{found.ratio:.3g} × {np.exp(found.ratio_spread):.2f}^±1".rjust(22)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model folder or a GGUF file")
    parser.add_argument("--calibration", required=True, help="text to price on")
    parser.add_argument("--held-out", required=True, help="text to measure plans on")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run goes on there")
    parser.add_argument("--plans", type=int, default=48, help="random plans to measure (default: %(default)s)")
    parser.add_argument("--formats", default="IQ4_NL,Q4_1,Q5_0,Q5_1,Q8_0", help="the menu (default: %(default)s)")
    parser.add_argument("--measured-sequences", type=int, default=4, help="for one unit at a time; 0 leaves it out (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the plans and the labels (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where torch works (default: %(default)s)")
    args = parser.parse_args()

    settings = Settings(args.model, formats=tuple(args.formats.split(",")), calibration=args.calibration, held_out=args.held_out, seed=args.seed)
    bench = set_up(settings, args.out, device=args.device, progress=Silent())
    run = price(bench)
    plans = random_plans(run.space, args.plans, rng=np.random.default_rng(args.seed))
    measure(bench, run, plans)
    known = run.measurements
    measured = [known[tuple(choice.tolist())] for choice in plans]
    report(scores(bench, run, args.measured_sequences), plans, measured, args.out)


if __name__ == "__main__":
    main()
