"""Compare formats alone with formats and structure at equal limits, in files that llama.cpp loads, or checkpoints of another `--target`.

For each budget (`--budgets`) and each memory (`--memories`, with `--context` and `--parallel`) a fit with `--structure`, which searches formats alone
first and measures both on the same held-out text. Of a limit below the smallest file of formats there is only the second. Figures are divergences
from the original, of what would be written; `as cut` is that of the structure before what is left was refitted.

    python benchmarks/structure.py MODEL --budgets 5bpw,4bpw,3.5bpw --structure all --out FOLDER

Fits of all budgets share their measurements in a folder, and those of all memories in another, whose runs have types of the cache; they are continued
where an earlier run was interrupted.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import bitwright as bw
from bitwright.errors import BudgetError
from bitwright.pipeline import Memory, Search, Settings, asked_structure, cache_types, method_named, settings_for_limit
from bitwright.pipeline.planning.size_limits import BudgetOrMemory
from bitwright.report import StructureNote

_HEADINGS = "| limit | formats alone: MB | nats/token | with structure: MB | as cut | nats/token | difference, paired | kept |\n" + 8 * "|---" + "|"


@dataclass(frozen=True)
class Bench:
    """Settings and effort that all fits share, and the folder of their results."""

    settings: Settings
    by: Search
    out: Path

    def row(self, limit: BudgetOrMemory) -> str:
        """Return a limit's row of the table."""
        folder = self.out / ("memories" if isinstance(limit, Memory) else "budgets")
        try:
            fitted = bw.fit(settings_for_limit(self.settings, limit), limit, folder, by=self.by)
        except BudgetError:
            return f"| {limit.text} |{7 * ' none |'}"
        note, plan = fitted.summary.structure, fitted.plan
        if note and note.kept:
            return f"| {limit.text} | {_row(note)}"
        return (
            f"| {limit.text} | {plan.size_bytes / 1e6:.3f} | {plan.divergence.nats_per_token:.4f} |{4 * ' – |'} all: nothing taken away was better |"
        )


def _row(note: StructureNote) -> str:
    alone = "none | " if note.alone_nats is None or note.alone_bytes is None else f"{note.alone_bytes / 1e6:.3f} | {note.alone_nats:.4f}"
    difference = (
        "–" if note.difference is None else f"{note.difference[0]:+.4f} ± {note.difference[1]:.4f}, {'ships' if note.won else 'does not ship'}"
    )
    as_cut = "–" if note.as_cut is None else f"{note.as_cut:.4f}"
    found = f"{note.nats_per_token:.4f} ± {note.standard_error:.4f}"
    return f"{alone} | {note.size_bytes / 1e6:.3f} | {as_cut} | {found} | {difference} | {note.kept} |"


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
    parser.add_argument("--target", default="llama.cpp")
    parser.add_argument("--formats", default="")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--held-out", default="")
    parser.add_argument("--n-calibration", type=int, default=32)
    parser.add_argument("--n-held-out", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--dtype", default="")
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    kinds, method = asked_structure(said.structure)
    settings = Settings(
        said.model,
        target=said.target,
        formats=tuple(said.formats.upper().split(",")) if said.formats else (),
        calibration=said.calibration,
        held_out=said.held_out,
        n_calibration=said.n_calibration,
        n_held_out=said.n_held_out,
        sequence_length=said.length,
        dtype=said.dtype,
        structure=kinds,
        structure_method=method,
    )
    limits: list[BudgetOrMemory] = [bw.parse_budget(text) for text in said.budgets.split(",") if text]
    types = cache_types(said.cache_types)
    limits += [Memory(bw.parse_budget(text), said.context, said.parallel, types) for text in said.memories.split(",") if text]
    bench = Bench(settings, Search(method_named("auto"), evaluations=said.evaluations), said.out)
    print(_HEADINGS)
    for limit in limits:
        print(bench.row(limit), flush=True)


if __name__ == "__main__":
    main()
