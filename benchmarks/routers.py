"""Measure the gain of calibrating the routers after quantization (QESC), with plans of the same bytes.

For each budget three plans of one file size or less: one format for all experts (the largest that fits), the optimum of the table, and the best
that the default search finds with `--evaluations` on the calibration text. Each is measured on held-out text as it is and with its routers
calibrated on the calibration text, paired by sequence; beside it how many of the original routers' choices it does not make. A budget of b is what
uniform codes of b bits take, between two widths in proportion.

    python benchmarks/routers.py MOE --calibration cal.txt --held-out held.txt --out FOLDER

`--skip 'token_embd*'` quantizes attention too, as the paper does. The last lines vary the one field of the step, for the optimum of the table.
"""

from pathlib import Path

import numpy as np
import torch
from native_run import code_bits, parser_of, settings_of
from numpy.typing import NDArray

from bitwright.compress import Weights, applied, planned_weights
from bitwright.errors import UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import KullbackLeibler, Reference, standard_error
from bitwright.objectives.metrics.router_shift import RouterShift
from bitwright.pipeline import Search, Settings
from bitwright.pipeline.finishing.router_calibration import RIDGE, calibrated_routers
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.run_space import price
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Choice

RIDGES = (1.0, 8.0, 32.0, 128.0, 512.0, 4096.0)


class Lab:
    """A run, its model, and what measures it on held-out text."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.bench = set_up(settings, folder, device="cpu", progress=Silent())
        self.run = price(self.bench)
        held_out = self.bench.texts.held_out
        self.reference = Reference(self.bench.model, held_out, scratch=folder, progress=Silent())
        self.shift = RouterShift().prepare(self.bench.model, held_out)

    def budgets(self, code_bits: list[float]) -> dict[float, int]:
        """Budgets in bits of the whole file by bits of a code."""
        space = self.run.everything
        widths = {form.bits: int(space.total_bits(space.uniform(form))) for form in space.formats if form.name in self.run.settings.formats}
        return {bits: int(np.interp(bits, sorted(widths), [widths[b] for b in sorted(widths)])) // 8 * 8 for bits in code_bits}

    def plans(self, budget_bits: int, n_evaluations: int) -> dict[str, Choice]:
        """The plans of a budget by name; the paper's only where it has an answer."""
        run, found = self.run, dict[str, Choice]()
        for name, method, effort in (("one format", "eac-moe", 1), ("searched", "auto", n_evaluations)):
            search = Search(method_named(method), evaluations=effort, objectives=(KullbackLeibler(),))
            try:
                trials = search_budget(self.bench, run, budget_bits=budget_bits, search=search).trials
            except UserError:
                continue
            full = trials.only(trials.n_sequences == trials.n_sequences.max())
            full = full.only(run.space.total_bits(full.choices) <= budget_bits)
            found[name] = full.choices[full.values[:, 0].argmin()]
        return found | {"table": solve(run.space, run.table, budget_bits).choice}

    def weights(self, choice: Choice) -> Weights:
        """A choice's weights with the routers of the original."""
        by_name = {form.name: form for form in self.run.space.formats}
        formats = {tensor: by_name[form] for tensor, form in self.run.space.names(choice).items()}
        return planned_weights(self.bench.model, self.bench.levels, formats=formats)

    def calibrated(self, weights: Weights, ridge: float) -> Weights:
        """Return the weights with calibrated routers."""
        routers = calibrated_routers(self.bench.model, weights, self.bench.texts.calibration, ridge=ridge, progress=Silent())
        return {**weights, **{name: lambda name=name: routers[name] for name in routers}}  # type: ignore[misc]

    def by_sequence(self, weights: Weights) -> NDArray[np.float64]:
        """The divergence of each held-out sequence `(n_sequences,)` with those weights."""
        with applied(self.bench.model, weights):
            return self.reference.measure(self.bench.model, (KullbackLeibler(),))[:, 0]

    def shifted(self, weights: Weights) -> float:
        """The share of the original's choices that are not made."""
        with applied(self.bench.model, weights):
            return self.shift.evaluate_model(self.bench.model).value

    def compared(self, choice: Choice, ridge: float) -> str:
        """Return the divergence without and with calibration, and the paired difference."""
        weights = self.weights(choice)
        other = self.calibrated(weights, ridge)
        before, after = self.by_sequence(weights), self.by_sequence(other)
        change = after - before
        told = (
            f"{before.mean():>8.4f} → {after.mean():>7.4f} ({after.mean() / before.mean():.3f}, {change.mean():+.4f} ± {standard_error(change):.4f})"
        )
        return f"{told}   {self.shifted(weights):>5.1%} → {self.shifted(other):>5.1%}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = parser_of(__doc__, formats="INT2_G32,INT3_G32,INT4_G32", skip="token_embd*,*attn*", budgets="2,2.5,3", evaluations=30)
    parser.add_argument("--codec", default="rtn", help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = settings_of(args, codec=args.codec)
    lab = Lab(settings, args.out)
    asked = lab.budgets(code_bits(args))
    print("nats/token on held-out text, the original routers → calibrated ones (ratio, paired difference), and choices not made")
    for bits, budget in asked.items():
        print(f"\n{bits:g} bits, {budget // 8:,} bytes")
        for name, choice in lab.plans(budget, args.evaluations).items():
            print(f"  {name:<11}{lab.compared(choice, RIDGE)}", flush=True)
    print("\nridge, for the table's plan of the largest budget")
    choice = lab.plans(max(asked.values()), 1)["table"]
    for ridge in RIDGES:
        print(f"  {ridge:>10g} {lab.compared(choice, ridge)}", flush=True)


if __name__ == "__main__":
    main()
