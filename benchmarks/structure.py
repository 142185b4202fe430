"""Compare formats alone with formats and structure at equal limits, in files that llama.cpp loads.

For each budget (`--budgets`) and each memory (`--memories`, with `--context`) two fits with the same texts and effort: of formats alone, and with
`--structure`. The second offers heads and channels in the order of what they give, and ships formats alone where these measure better. Of a budget
below the smallest file of formats, only the second is possible. Figures are divergences from the original on held-out text, of what was written.

    python benchmarks/structure.py MODEL --budgets 5bpw,4bpw,3.5bpw --structure all --out FOLDER

Fits of all limits share their measurements in the folder, and are continued where an earlier run was interrupted.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import bitwright as bw
from bitwright.errors import BudgetError
from bitwright.pipeline import Memory, Search, Settings, cache_types, method_named, settings_for_limit, structure_kinds
from bitwright.pipeline.planning.size_limits import BudgetOrMemory
from bitwright.pipeline.verbs import Fitted
from bitwright.report import StructureNote

_HEADINGS = "| limit | formats alone: MB | nats/token | with structure: MB | nats/token | difference, paired | offered |\n" + 7 * "|---" + "|"


@dataclass(frozen=True)
class Bench:
    """Settings and effort that all fits share, and the folder of their results."""

    settings: Settings
    by: Search
    out: Path

    def fitted(self, limit: BudgetOrMemory, structure: str) -> Fitted | None:
        """Return the fit within a limit, None where no choice is."""
        settings = settings_for_limit(replace(self.settings, structure=structure_kinds(structure)), limit)
        try:
            return bw.fit(settings, limit, self.out / (structure.replace(",", "+") or "formats-alone"), by=self.by)
        except BudgetError:
            return None


def rows(bench: Bench, limits: list[BudgetOrMemory], structure: str) -> Iterator[str]:
    """Yield a row of the table for each limit."""
    for limit in limits:
        alone, offered = bench.fitted(limit, ""), bench.fitted(limit, structure)
        note = offered.summary.structure if offered else None
        kept = note.kept if note and note.kept else "nothing better"
        yield f"| {limit.text} | {_figures(alone)} | {_figures(offered)} | {_difference(note)} | {kept} |"


def _figures(fitted: Fitted | None) -> str:
    if fitted is None:
        return "none | "
    found = fitted.plan.divergence
    return f"{fitted.plan.size_bytes / 1e6:.3f} | {found.nats_per_token:.4f} ± {found.standard_error:.4f}"


def _difference(note: StructureNote | None) -> str:
    if note is None or note.difference is None:
        return "–"
    return f"{note.difference[0]:+.4f} ± {note.difference[1]:.4f}, {'ships' if note.won else 'does not ship'}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--budgets", default="")
    parser.add_argument("--memories", default="")
    parser.add_argument("--context", type=int, default=16384)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--cache-types", default="any")
    parser.add_argument("--structure", default="all")
    parser.add_argument("--formats", default="")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--held-out", default="")
    parser.add_argument("--n-calibration", type=int, default=32)
    parser.add_argument("--n-held-out", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    settings = Settings(
        said.model,
        formats=tuple(said.formats.upper().split(",")) if said.formats else (),
        calibration=said.calibration,
        held_out=said.held_out,
        n_calibration=said.n_calibration,
        n_held_out=said.n_held_out,
        sequence_length=said.length,
    )
    limits: list[BudgetOrMemory] = [bw.parse_budget(text) for text in said.budgets.split(",") if text]
    types = cache_types(said.cache_types)
    limits += [Memory(bw.parse_budget(text), said.context, said.parallel, types) for text in said.memories.split(",") if text]
    bench = Bench(settings, Search(method_named("auto"), evaluations=said.evaluations), said.out)
    print(_HEADINGS)
    for row in rows(bench, limits, said.structure):
        print(row, flush=True)


if __name__ == "__main__":
    main()
