"""Compare search methods where errors compound: the best choice that each finds within a budget, by the forward tokens that it reads.

All methods search one run: the same model, codec, table, calibration text and starting choices; what one has measured the others are charged for,
too. The table's own sweep is not counted, since all share it. For every budget and method, and at equal forward tokens:

    calibration   the least divergence found on the calibration text, which is what a search minimises, and the evaluations and backward tokens until
                  then
    held-out      the divergence of that choice on held-out text, and its paired difference from that of the first method

    python benchmarks/low_bits.py MODEL --calibration cal.txt --held-out held.txt --out FOLDER --target native --formats INT2_G32,INT3_G32,INT4_G32

Everything measured is kept in the folder, so an interrupted run goes on where it was.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwright.methods.by_name import method_named
from bitwright.objectives import Measurement, standard_error
from bitwright.pipeline import Run, Search, Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.candidates import budget_bytes
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.run_space import price
from bitwright.pipeline.searching.ask_tell_loop import SearchResult
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.progress import Silent
from bitwright.spaces import Choice, parse_budget

SHARES = (0.25, 0.5, 1.0)  # of the forward tokens, at which the best choice so far is shown


@dataclass(frozen=True, eq=False)
class Best:
    """Best choice `(n_units,)` of a method within so many forward tokens, with its divergence on the calibration text and the effort until then."""

    method: str
    forward_tokens: int
    choice: Choice
    nats_per_token: float
    evaluations: int
    backward_tokens: int


def best_so_far(found: SearchResult, name: str, forward_tokens: int) -> Best:
    """Return the best choice measured on all of the text within so many forward tokens."""
    n_sequences = max(measurement.n_sequences for measurement, _ in found.steps)
    within = [(m, spent) for m, spent in found.steps if spent.forward_tokens <= forward_tokens or m is found.steps[0][0]]
    best = min((m for m, _ in within if m.n_sequences == n_sequences), key=lambda m: m.first.value)
    spent = within[-1][1]
    return Best(name, spent.forward_tokens, np.array(best.choice), best.first.value, spent.evaluations, spent.backward_tokens)


def searched(bench: LoadedRun, run: Run, names: list[str], *, size_bytes: int, forward_tokens: int) -> Iterator[Best]:
    """Yield the best choices of each method at each share of the forward tokens."""
    for name in names:
        search = Search(method_named(name), tokens=2 * forward_tokens)  # at most as many are read backward
        found = search_budget(bench, run, budget_bits=8 * size_bytes, search=search)
        yield from (best_so_far(found, name, round(share * forward_tokens)) for share in SHARES)


def show(rows: list[Best], known: dict[tuple[int, ...], Measurement], *, title: str) -> None:
    """Print the rows of a budget, those of each share of the tokens together."""
    print(f"{title}\n{'method':14}{'forward':>12}{'backward':>12}{'evaluations':>13}{'calibration':>13}{'held-out':>19}{'less the first':>20}")
    for i in range(len(SHARES)):
        together = rows[i :: len(SHARES)]
        first = known[tuple(together[0].choice.tolist())]
        for row in together:
            found = known[tuple(row.choice.tolist())]
            difference = found.by_sequence[:, 0] - first.by_sequence[:, 0]
            held_out = f"{found.nats_per_token:.4f} ± {found.standard_error:.4f}"
            less = "" if row is together[0] else f"{difference.mean():+.4f} ± {standard_error(difference):.4f}"
            effort = f"{row.forward_tokens:12,}{row.backward_tokens:12,}{row.evaluations:13}"
            print(f"{row.method:14}{effort}{row.nats_per_token:13.4f}{held_out:>19}{less:>20}", flush=True)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file")
    parser.add_argument("--calibration", required=True, help="text to search on")
    parser.add_argument("--held-out", required=True, help="text to measure the best choices on")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run goes on there")
    parser.add_argument("--target", default="llama.cpp", help="(default: %(default)s)")
    parser.add_argument("--formats", default="", help="the menu (default: all of the target's)")
    parser.add_argument("--codec", default="", help="that all of it is measured with (default: the target's)")
    parser.add_argument("--budgets", default="2.5bpw,3bpw", help="(default: %(default)s)")
    parser.add_argument("--methods", default="auto,relaxed", help="(default: %(default)s)")
    parser.add_argument("--forward-tokens", type=int, default=1_000_000, help="of each search (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=64, help="of the calibration text (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    args = parser.parse_args()

    formats = tuple(name for name in args.formats.split(",") if name)
    texts = {"calibration": args.calibration, "held_out": args.held_out, "n_calibration": args.sequences}
    settings = Settings(args.model, target=args.target, formats=formats, codec=args.codec, seed=args.seed, **texts)
    bench = set_up(settings, args.out, device="cpu", progress=Silent())
    run = price(bench)
    for text in args.budgets.split(","):
        size_bytes = budget_bytes(parse_budget(text), n_weights=run.space.n_weights, original_bytes=run.original_bytes)
        rows = [*searched(bench, run, args.methods.split(","), size_bytes=size_bytes, forward_tokens=args.forward_tokens)]
        measure(bench, run, [row.choice for row in rows])
        show(rows, run.measurements, title=f"{text}, {size_bytes:,} bytes")


if __name__ == "__main__":
    main()
