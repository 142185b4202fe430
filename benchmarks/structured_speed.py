"""Decode time taken away by structure and by formats alone, in files that stock llama.cpp loads.

For each budget three files: a base of formats alone, one of formats alone that is predicted to decode in `--share` of the base's time, and one with
parts taken away within the same bytes and seconds. Divergences are those of what was written, on held-out text. The three files of a budget take
turns in one process, so that what else the machine does meets all of them; times are medians over the turns with their quartiles, and ratios to the
base are medians of those of each turn. On one thread the processor's time counts, as in `bitwright profile`. `--time-only` times what was written.

    bitwright profile --out here.toml --threads 1 --model MODEL --formats Q8_0,Q5_0,IQ4_NL,Q4_0,Q4_K,Q6_K
    python benchmarks/structured_speed.py MODEL --profile here.toml --budgets 90MB --out FOLDER
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

import bitwright as bw
from bitwright.compress import GgufSource
from bitwright.devices import Device, read_device
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.objectives import CostObjective
from bitwright.pipeline import Conditions, Run, Search, Settings, asked_structure, method_named
from bitwright.pipeline.finishing.building import build
from bitwright.pipeline.fit_plan import nearest_beyond
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.offered_steps import without_moving
from bitwright.pipeline.plan_request import request_plan
from bitwright.pipeline.planning.cost_limits import NO_CONDITIONS, CostCeiling
from bitwright.pipeline.planning.costs import costs_of
from bitwright.pipeline.planning.held_out import judge, measure
from bitwright.pipeline.planning.size_limits import bounded
from bitwright.pipeline.pricing.run_space import price
from bitwright.pipeline.run_lock import working_in
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.pipeline.structured_fit import Alone, Offer, structured_plan
from bitwright.progress import Silent
from bitwright.spaces import Budget, Plan

_PLANS = "plans.json"
_HEADINGS = "| budget | | MB | nats/token | predicted ms | ms a token | tokens/s | of the base | kept |\n" + 9 * "|---" + "|"
#: of a file: the words for it, its megabytes, nats/token, predicted seconds, and what is kept
Row = dict[str, str | float]


def alone(loaded: LoadedRun, run: Run, budget: Budget, conditions: Conditions, by: Search) -> Alone:
    """Return the best of formats alone within the limits, or without a plan the nearest beyond them."""
    nearest = nearest_beyond(run, budget, conditions)
    if nearest is not None:
        measure(loaded, run, [nearest])
        return Alone(nearest, run.measurements[tuple(nearest.tolist())], None)
    request = request_plan(run, budget, conditions, method=by.method.name)
    search_budget(loaded, request.run, budget_bits=8 * request.size_bytes, search=by, limits=request.limits)
    judge(loaded, run, request.candidates, ())
    return Alone(*request.best({}), request.plan({}))


def written(loaded: LoadedRun, run: Run, budget: Budget, device: Device, by: Search, share: float, out: Path) -> list[Row]:
    """Write the files of a budget, and return what is predicted of them."""
    seconds = costs_of(run).named(CostObjective.SECONDS, device)
    base = alone(loaded, run, budget, NO_CONDITIONS, by)
    ceiling = CostCeiling(CostObjective.SECONDS, share * float(seconds.of(base.choice)))
    conditions = Conditions((ceiling,), device)
    formats = alone(loaded, run, budget, conditions, by)
    bound, size_bytes = bounded(run, budget)
    found = structured_plan(loaded, Offer(bound, budget, size_bytes, conditions), formats)
    rows = list[Row]()
    for name, each in (("base", base), ("formats", formats)):
        if each.plan is not None:
            rows.append(_row(name, each.plan, float(seconds.of(each.choice)), "all", budget, out))
    if found is not None and found[1].decoding is not None:
        plan, note = found
        kept = note.kept if note.difference is None else f"{note.kept}; {note.difference[0]:+.4f} ± {note.difference[1]:.4f} from formats, paired"
        rows.append(_row("structure", plan, note.decoding.seconds, kept, budget, out))
    return rows


def _row(name: str, plan: Plan, seconds: float, kept: str, budget: Budget, out: Path) -> Row:
    path = build(plan, out / f"{budget.text}-{name}.gguf", progress=Silent())
    nats = f"{plan.divergence.nats_per_token:.4f} ± {plan.divergence.standard_error:.4f}"
    return {"budget": budget.text, "name": name, "file": str(path), "nats": nats, "seconds": seconds, "kept": kept}


def timed(rows: list[Row], *, tokens: int, turns: int, threads: int) -> None:
    """Time the files of a budget turn by turn, and print a row for each."""
    paths = [Path(str(row["file"])) for row in rows]
    engines = [LlamaCpp(path, n_vocabulary=_vocabulary(path), n_threads=threads, context=512) for path in paths]
    spent = np.array([[engine.seconds_per_token(tokens) for engine in engines] for _ in range(turns)])  # (n_turns, n_files)
    ratios = np.median(spent / spent[:, :1], axis=0)
    for row, path, seconds, ratio in zip(rows, paths, spent.T, ratios, strict=True):
        low, middle, high = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])
        size = f"{path.stat().st_size / 1e6:.3f}"
        measured = f"{middle:.3f} ({low:.3f} to {high:.3f}) | {1e3 / middle:.1f} | {ratio:.3f}"
        print(
            f"| {row['budget']} | {row['name']} | {size} | {row['nats']} | {1e3 * float(row['seconds']):.3f} | {measured} | {row['kept']} |",
            flush=True,
        )
    if all(row["name"] != "structure" for row in rows):
        print(f"| {rows[0]['budget']} | structure |{6 * ' – |'} nothing taken away was better |", flush=True)


def _vocabulary(path: Path) -> int:
    return next(tensor.shape[0] for tensor in GgufSource(path).tensors if tensor.name == "token_embd.weight")


def main() -> None:
    """Write and time the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--budgets", default="90MB")
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--context", type=int, default=256, help="tokens in the cache that is counted")
    parser.add_argument("--structure", default="attention,channels,layers")
    parser.add_argument("--formats", default="Q8_0,Q5_0,IQ4_NL,Q4_0,Q4_K,Q6_K")
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--held-out", default="")
    parser.add_argument("--n-calibration", type=int, default=8)
    parser.add_argument("--n-held-out", type=int, default=24)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--evaluations", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time-only", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    listed = said.out / _PLANS
    if not said.time_only:
        kinds, method = asked_structure(said.structure)
        settings = Settings(
            said.model,
            formats=tuple(said.formats.upper().split(",")),
            calibration=said.calibration,
            held_out=said.held_out,
            n_calibration=said.n_calibration,
            n_held_out=said.n_held_out,
            sequence_length=said.length,
            structure=kinds,
            structure_method=method,
        )
        device, by = replace(read_device(said.profile), context=said.context), Search(method_named("auto"), evaluations=said.evaluations)
        with working_in(said.out):
            loaded = set_up(settings, said.out, device="cpu", progress=Silent())
            run = without_moving(price(loaded))
            found = [written(loaded, run, bw.parse_budget(text), device, by, said.share, said.out) for text in said.budgets.split(",")]
        listed.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {said.threads} threads, {said.turns} turns of {said.tokens} tokens\n\n{_HEADINGS}")
    for rows in json.loads(listed.read_text(encoding="utf-8")):
        timed(rows, tokens=said.tokens, turns=said.turns, threads=said.threads)


if __name__ == "__main__":
    main()
