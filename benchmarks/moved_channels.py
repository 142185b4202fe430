"""Measure what steps that move channels give at the same bytes: a plan's formats, with and without them, on held-out text.

python benchmarks/moved_channels.py RUN --budget 80MB --budget 90MB --codec ggml,obs --steps scale --steps order-channels,scale --steps rotate

RUN is a folder of `bitwright search MODEL --out RUN`. For each budget and each codec, the optimum of the run's table is measured as it
ships, and again with each of the `--steps`; `obs` is sequential, as --ship-codec obs. Divergence from the original in nats per token; differences are
paired by sequence. What was measured is kept in RUN, so that a benchmark that was stopped goes on where it was.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwright.compress import read_pinned_weights
from bitwright.objectives import Measurement, standard_error
from bitwright.pipeline import open_run
from bitwright.pipeline.finishing.shipped_weights import planned_steps
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.plan_request import request_plan
from bitwright.pipeline.planning.cost_limits import NO_CONDITIONS
from bitwright.pipeline.planning.held_out import measure, measure_shipped
from bitwright.pipeline.planning.origins import KNAPSACK
from bitwright.pipeline.run import Run
from bitwright.pipeline.run_lock import working_in
from bitwright.progress import Silent
from bitwright.spaces import Choice, file_bytes, parse_budget


def shipping(run: Run, codec: str, steps: tuple[str, ...]) -> Run:
    """Return the run with a codec and steps that ship."""
    return replace(run, settings=replace(run.settings, ship_codec="" if codec == run.settings.rounding else codec, steps=steps))


def measured(loaded: LoadedRun, run: Run, choice: Choice, codec: str, steps: tuple[str, ...]) -> Measurement:
    """Measure a choice as it ships with a codec and steps."""
    shipped = shipping(run, codec, steps)
    key = tuple(choice.tolist())
    if not shipped.settings.remeasures:
        measure(loaded, run, [choice])
        return run.measurements[key]
    measure_shipped(loaded, [shipped], choice)
    return shipped.shipped[key]


def moved(run: Run, choice: Choice) -> str:
    """Return at how many places the steps of a run move channels, step by step."""
    steps = planned_steps(run, run.space.names(choice))
    return ", ".join(str(len(read_pinned_weights(Path(step.path), step.sha256))) for step in steps) or "0"


def row(alone: Measurement, found: Measurement) -> str:
    """Return divergence, ratio and difference as cells."""
    paired = found.by_sequence[:, 0] - alone.by_sequence[:, 0]
    values = f"{found.nats_per_token:.4f} ± {found.standard_error:.4f} | {found.nats_per_token / alone.nats_per_token:.3f}"
    return f"{values} | {np.mean(paired):+.4f} ± {standard_error(paired):.4f}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished search")
    parser.add_argument("--budget", action="append", required=True, help="as for `bitwright plan`; may be given several times")
    parser.add_argument("--codec", default="ggml", help="that ship, separated by commas (default: %(default)s)")
    parser.add_argument("--steps", action="append", default=[], help="steps in their order, separated by commas; may be given several times")
    args = parser.parse_args()
    run = open_run(args.run)
    print("| budget | bytes | codec | steps | nats per token | ratio | difference | places moved | seconds |\n|---|---|---|---|---|---|---|---|---|")
    with working_in(run.folder):
        loaded = set_up(run.settings, run.folder, device="cpu", progress=Silent())
        for text in args.budget:
            request = request_plan(run, parse_budget(text), NO_CONDITIONS)
            choice = request.candidates[KNAPSACK]
            for codec in args.codec.split(","):
                alone = None
                for steps in ((), *(tuple(words.split(",")) for words in args.steps)):
                    started = time.perf_counter()
                    found = measured(loaded, run, choice, codec, steps)
                    alone = alone or found
                    cells = f"{text} | {file_bytes(run.space, choice):,} | {codec} | {', '.join(steps) or 'none'} | {row(alone, found)}"
                    print(f"| {cells} | {moved(shipping(run, codec, steps), choice)} | {time.perf_counter() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
