"""Compare a format for every expert of a mixture, and dropping experts, with one format for all experts of a layer.

Only experts are decided about (gate, up and down of an expert together, if not said otherwise); everything else stays as it is stored. A budget of b
is what uniform codes of b bits take, between two widths in proportion. At each budget and the same bytes:

    per layer       of all plans with one format for the experts of a layer, measured one by one on the text that is searched on, the best
    mc-moe          the best of its presets (per block, with the exponents of its paper and of its code; one budget for all), each measured there
    per expert      the default method with `--evaluations`, on the same text; and its table alone, before anything is measured
    per matrix      the same with gate, up and down of an expert each in a format of its own
    with drops      the same where experts may be dropped

All are then measured on held-out text, paired with per layer. Below, the ranking of experts by what sensitivities expect of their coarsest format and
of nothing in their place, and by what dropping them costs, is compared with zeroing experts one at a time.

    python benchmarks/experts.py MOE --calibration cal.txt --held-out held.txt --out FOLDER

Everything is kept in the folder and not repeated, so an interrupted run goes on where it was. `python -m tests.trained_mixture MOE` makes the second
mixture, of which `--calibration self` is what it writes itself.
"""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from native_run import code_bits, parser_of, settings_of
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bitwright.compress import matrix_shape, measure_distortion
from bitwright.engines import NATIVE
from bitwright.errors import UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import Evaluator, KullbackLeibler, Measurement, Reference, standard_error
from bitwright.pipeline import Run, Search, Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.price_table import distortion_of, priced, subject_of
from bitwright.pipeline.pricing.run_space import price, whole_space
from bitwright.pipeline.searching.ask_tell_loop import Meter
from bitwright.pipeline.searching.model_problem import open_problem
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.predictors import proxy_named
from bitwright.predictors.sensitivity.text_divergence import divergence
from bitwright.progress import Silent
from bitwright.search import Problem, solve
from bitwright.spaces import DROP, PRUNE, Choice, Choices, Tensor, by_layer, tied

PRESETS = ("mc-moe", "mc-moe-released", "mc-moe-global")
NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Lab:
    """A run and its model."""

    bench: LoadedRun
    run: Run

    def best(self, method: str, budget_bits: int, n_evaluations: float) -> Choice:
        """Return the choice that a method finds on the text that it searches on: none for a budget it cannot meet, the table's optimum where it may
        measure nothing.
        """
        if not n_evaluations:
            return solve(self.run.space, self.run.table, budget_bits).choice
        search = Search(method_named(method), evaluations=n_evaluations, objectives=(KullbackLeibler(),))
        try:
            trials = search_budget(self.bench, self.run, budget_bits=budget_bits, search=search).trials
        except UserError:
            return NOTHING
        full = trials.only(trials.n_sequences == trials.n_sequences.max())
        full = full.only(self.run.space.total_bits(full.choices) <= budget_bits)
        return full.choices[full.values[:, 0].argmin()]

    def held_out(self, choice: Choice) -> Measurement:
        """A choice on held-out text."""
        measure(self.bench, self.run, [choice])
        return self.run.measurements[tuple(choice.tolist())]


def opened(settings: Settings, folder: Path) -> Lab:
    """The run in a folder, priced."""
    bench = set_up(settings, folder, device="cpu", progress=Silent())
    return Lab(bench, price(bench))


def budgets(run: Run, code_bits: list[float]) -> dict[float, int]:
    """Budgets in bits of the whole file by bits of a code; bits per weight of a format less what its scales take is its width."""
    space = run.everything
    widths = {form.bits: int(space.total_bits(space.uniform(form))) for form in space.formats if form.name in run.settings.formats}
    return {bits: int(np.interp(bits, sorted(widths), [widths[b] for b in sorted(widths)])) // 8 * 8 for bits in code_bits}


def plans_of_layers(run: Run) -> Choices:
    """Every choice `(n, n_units)` with one format for the experts of a layer."""
    tie = tied(run.everything, by_layer)
    return tie.expanded(np.array(list(product(*(np.flatnonzero(row) for row in tie.coarse.offered))), dtype=np.int64))


def best_of_layers(problem: Problem, evaluator: Evaluator, plans: Choices, budget_bits: int) -> Choice:
    """The best of those that fit, by measuring all that fit."""
    fitting = plans[problem.space.total_bits(plans) <= budget_bits]
    values = [evaluator(plan, evaluator.n_sequences).first.value for plan in fitting]
    return fitting[int(np.argmin(values))]


def zeroed(bench: LoadedRun, run: Run) -> NDArray[np.float64]:
    """Divergence in nats per token with the weights of one expert at a time set to zero `(n_units,)`."""
    reference = Reference(bench.model, bench.texts.calibration, scratch=bench.folder, progress=Silent())

    def without(tensors: tuple[Tensor, ...]) -> float:
        return divergence(bench.model, {t.name: lambda t=t: np.zeros(matrix_shape(t), dtype=np.float32) for t in tensors}, reference)

    return np.array([without(unit.tensors) for unit in run.space.units])


def ranking(kept: Lab, dropping: Lab) -> str:
    """Return the rank correlations of experts in a sentence."""
    bench, space, zero = kept.bench, kept.run.space, zeroed(kept.bench, kept.run)
    distortion, coarsest = distortion_of(bench, whole_space(bench)), space.smallest()
    ranked = {
        f"{name} at the coarsest format": priced(bench, name, space=space, distortion=distortion)[np.arange(len(coarsest)), coarsest]
        for name in ("gradient", "joint")
    }
    whole = replace(NATIVE, formats=(*NATIVE.formats, PRUNE))
    absent = whole.space(space.units, menu=(space.formats[coarsest[0]].name, PRUNE.name), fixed_bytes=0, n_weights=space.n_weights)
    measured = measure_distortion(absent, bench.levels, progress=Silent())
    for name in ("gradient", "joint", "output-change"):
        ranked[f"{name} of nothing"] = proxy_named(name).price(subject_of(bench, absent), measured)[:, absent.formats.index(PRUNE)]
    ranked["price of dropping"] = dropping.run.store.array("what dropping costs")
    found = "".join(f"\n  {name:<32}{spearmanr(values, zero).statistic:.3f}" for name, values in ranked.items())
    return f"experts ranked against zeroing one at a time (Spearman):{found}"


def compared(told: Measurement, base: Measurement) -> str:
    """A divergence, its ratio to another, and the paired difference."""
    change = np.array(told.by_sequence[:, 0]) - np.array(base.by_sequence[:, 0])
    return f"{told.nats_per_token:>9.4f} ({told.nats_per_token / base.nats_per_token:.3f}, {change.mean():+.4f} ± {standard_error(change):.4f})"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(__doc__, formats="INT2_G32,INT3_G32,INT4_G32,INT6_G32", skip="token_embd*,*attn*", budgets="2,2.25,2.5,3,3.5", evaluations=100)
    parser.add_argument("--ranking", action="store_true", help="rank experts, and nothing else")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = settings_of(args)
    kept, dropping = opened(settings, args.out / "kept"), opened(replace(settings, structure=("experts",)), args.out / "dropping")
    if args.ranking:
        print(ranking(kept, dropping))
        return
    matrices = opened(replace(settings, target="native-matrices"), args.out / "matrices")
    asked, plans = budgets(kept.run, code_bits(args)), plans_of_layers(kept.run)
    search = Search(method_named("auto"), evaluations=0, objectives=(KullbackLeibler(),))
    with open_problem(kept.bench, kept.run, search, Meter()) as (problem, evaluator):
        of_layers = {bits: best_of_layers(problem, evaluator, plans, budget) for bits, budget in asked.items()}
    print(f"{len(kept.run.space.units)} experts; {len(plans):,} plans with one format a layer, all measured where they fit")
    print("nats/token on held-out text (over per layer, and the paired difference from it)")
    for bits, budget in asked.items():
        base = kept.held_out(of_layers[bits])
        print(f"\n{bits:g} bits, {budget // 8:,} bytes\n  per layer   {base.nats_per_token:>9.4f}")
        found = {name: choice for name in PRESETS if len(choice := kept.best(name, budget, 1))}
        for name, choice in found.items():
            print(f"  {name:<16}{compared(kept.held_out(choice), base)}")
        print(f"  {'table':<12}{compared(kept.held_out(solve(kept.run.space, kept.run.table, budget).choice), base)}")
        for name, lab in (("per expert", kept), ("per matrix", matrices), ("with drops", dropping)):
            choice = lab.best("auto", budget, args.evaluations)
            n_dropped = sum(lab.run.space.formats[f] == DROP for f in choice)
            print(f"  {name:<12}{compared(lab.held_out(choice), base)}{f'  {n_dropped} dropped' if n_dropped else ''}", flush=True)
    print(f"\n{ranking(kept, dropping)}")


if __name__ == "__main__":
    main()
