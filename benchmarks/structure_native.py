"""Compare formats alone with everything offered (`--structure all`) for `native`, at equal bytes as written.

For each budget two fits, and both folders as `from_pretrained` loads them on the same held-out text: divergence from the original in nats/token, and
the difference paired by sequence. Where the plan with everything is that of formats alone, the difference is 0.

    python benchmarks/structure_native.py MODEL --budgets 360KB,380KB,420KB --formats INT2_G32,INT3_G32,INT4_G32,INT6_G32 --out FOLDER
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import bitwright as bw
from bitwright.compress import Model, load
from bitwright.engines import engine_named
from bitwright.engines.native.reload import load_native
from bitwright.errors import BudgetError
from bitwright.objectives import KullbackLeibler, Reference, standard_error
from bitwright.pipeline import Search, Settings, method_named
from bitwright.pipeline.verbs import Fitted
from bitwright.progress import Silent
from bitwright.spaces import STRUCTURE_KINDS, Plan


@dataclass(frozen=True, eq=False)
class Bench:
    """Settings that all fits share, without structure, their effort, and the original with its predictions on the held-out text of the first run."""

    settings: Settings
    by: Search
    out: Path

    def fitted(self, budget: str, name: str, settings: Settings) -> Fitted | None:
        """Return the fit of a budget, None where nothing is within it."""
        try:
            return bw.fit(settings, bw.parse_budget(budget), self.out / name, by=self.by)
        except BudgetError:
            return None

    def row(self, budget: str) -> str:
        """Return a budget's row of the table."""
        alone = self.fitted(budget, "alone", self.settings)
        offered = self.fitted(budget, "all", replace(self.settings, structure=STRUCTURE_KINDS))
        found = [self.measured(fit.model) if fit else None for fit in (alone, offered)]
        cells = [_cell(fit, nats) for fit, nats in zip((alone, offered), found, strict=True)]
        if found[0] is None or found[1] is None or offered is None:
            return f"| {budget} | {cells[0]} | {cells[1]} | – | {kept(offered.plan) if offered else '–'} |"
        paired = found[1] - found[0]
        ratio = found[1].mean() / found[0].mean()
        return f"| {budget} | {cells[0]} | {cells[1]} | {ratio:.3f}, {paired.mean():+.4f} ± {standard_error(paired):.4f} | {kept(offered.plan)} |"

    def measured(self, folder: Path) -> NDArray[np.float64]:
        """Return the divergence of what was written from the original, of each held-out sequence `(n_sequences,)`."""
        model = load(self.settings.model, view=engine_named("native").view)
        reference = Reference(model, bw.open_run(self.out / "all").held_out, scratch=self.out, progress=Silent())
        written: Model = replace(model, module=load_native(folder, torch.float32))
        by_sequence: NDArray[np.float64] = reference.measure(written, [KullbackLeibler()])[:, 0]
        return by_sequence


def _cell(fit: Fitted | None, nats: NDArray[np.float64] | None) -> str:
    if fit is None or nats is None:
        return "none |"
    return f"{fit.plan.size_bytes / 1e6:.3f} | {nats.mean():.4f} ± {standard_error(nats):.4f}"


def kept(plan: Plan) -> str:
    """Return what a plan takes away: experts, attentions and blocks."""
    dropped = {
        name.rpartition(".experts.")[0] + name.rpartition(".experts.")[2].split(".")[0] for name, form in plan.formats.items() if form == "DROP"
    }
    structure = plan.structure.kept if plan.structure else None
    blocks = f", {len(structure.gone)} blocks, {len(structure.unattended)} attentions" if structure else ""
    return f"{len(dropped)} experts{blocks}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budgets", required=True)
    parser.add_argument("--formats", default="INT2_G32,INT3_G32,INT4_G32,INT6_G32")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--n-calibration", type=int, default=32)
    parser.add_argument("--n-held-out", type=int, default=64)
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    settings = Settings(
        said.model,
        target="native",
        formats=tuple(said.formats.upper().split(",")),
        calibration=said.calibration,
        n_calibration=said.n_calibration,
        n_held_out=said.n_held_out,
    )
    bench = Bench(settings, Search(method_named("auto"), evaluations=said.evaluations), said.out)
    print("| budget | formats alone: MB | nats/token | everything: MB | nats/token | ratio, difference, paired | gone |\n" + 7 * "|---" + "|")
    for budget in said.budgets.split(","):
        print(bench.row(budget), flush=True)


if __name__ == "__main__":
    main()
