"""The race: at the same stored bytes, whose allocation is nearest to the original, and what did finding it cost?

Same model, same codec, same calibration tokens, same bytes by the same count, held-out text that no lane saw, several calibration seeds (each another
order of the documents), paired standard errors. Only the matrices of the blocks are decided about, in integers of `--bits` with a scale and a minimum
for every `--group` weights. A budget of b is what uniform codes of b bits take, between two widths in proportion.
Lanes:

    uniform         every unit in the largest format that fits
    random mix      the two neighbouring formats at random, up to the budget: the mean of three
    table           the default method's word before anything is measured
    as cheap        the default method with the tokens of the cheapest rival
    <method>        the methods of `bitwright methods` that --methods names, each with at most --evaluations
    reference       --reference evaluations of a local search on true divergences: how low it may go at all
    <rival>         maps that rivals/*.py asked of the rivals themselves, from the same tokens

    python benchmarks/race.py MODEL --calibration cal.txt --held-out held.txt --out RACE --ask        what rivals/run_all.py is to be asked
    python benchmarks/race.py MODEL --calibration cal.txt --held-out held.txt --out RACE --maps MAPS  the race

Everything is kept in the folder and not repeated, so an interrupted race goes on where it was.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from race_table import show

from bitwright.methods import PREDICTOR, Method
from bitwright.methods.by_name import METHODS, method_named
from bitwright.methods.published_experts import OF_EXPERTS
from bitwright.objectives import read_documents
from bitwright.pipeline import Run, Search, Settings
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.run_space import price, uniforms
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.predictors import proxy_named
from bitwright.progress import Silent
from bitwright.search import Learning, LocalSearchOptions, Problem, random_mixes, solve, swaps
from bitwright.spaces import Choice, Space

N_MIXES = 3


@dataclass(frozen=True)
class Spent:
    """Tokens of forward and of backward passes, and seconds, over all of the lane's own work, pricing included."""

    forward_tokens: int
    backward_tokens: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Entrant:
    """Choices of a lane for one budget (several where they are drawn), and their cost."""

    lane: str
    choices: tuple[Choice, ...]
    spent: Spent


@dataclass(frozen=True, eq=False)
class Heat:
    """Heat of the race: a model, a calibration seed and a budget."""

    bench: LoadedRun
    run: Run
    budget_bits: int
    code_bits: float
    maps: tuple[dict[str, Any], ...]

    @property
    def space(self) -> Space:
        """Search space of the run."""
        return self.run.space

    def priced(self) -> Spent:
        """Cost of the run's own table."""
        passes, n_tokens = proxy_named(self.run.settings.sensitivity).passes(self.space), self.bench.texts.calibration.n_tokens
        seconds = sum(seconds for name, seconds, _, _ in self.run.store.stages() if name == self.run.settings.sensitivity)
        return Spent(round(passes.forward * n_tokens), round(passes.backward * n_tokens), seconds)


def entries(heat: Heat, *, methods: tuple[Method, ...], evaluations: int, reference: int) -> Iterator[Entrant]:
    """All lanes of a heat."""
    nothing, table = Spent(0, 0, 0.0), heat.priced()
    fitting = [choice for choice in uniforms(heat.run).values() if heat.space.total_bits(choice) <= heat.budget_bits]
    uniform = max(fitting, key=heat.space.total_bits)
    yield Entrant("uniform", (uniform,), nothing)
    mixes = random_mixes(problem(heat, uniform), heat.budget_bits, n=N_MIXES + 1).ask().choices
    yield Entrant("random mix", tuple(choice for choice in mixes if (choice != uniform).any())[:N_MIXES], nothing)
    yield Entrant("table", (solve(heat.space, heat.run.table, heat.budget_bits).choice,), table)
    theirs = [entry for entry in (rival(heat, found) for found in heat.maps) if entry.choices]
    yield from theirs
    if theirs:
        cheapest = min(entry.spent.forward_tokens + entry.spent.backward_tokens for entry in theirs)
        left = cheapest - table.forward_tokens - table.backward_tokens
        yield searched(heat, "as cheap", Search(method_named("auto"), tokens=max(left, 0)), first=table)
    for method in methods:
        yield searched(heat, method.name, Search(method, evaluations=evaluations), first=nothing if method.sensitivity else table)
    if reference:
        yield searched(heat, "reference", Search(LONG, evaluations=reference), first=table)


def searched(heat: Heat, lane: str, search: Search, *, first: Spent) -> Entrant:
    """Return the best choice that a method measured in full and that fits; the table's optimum where it measured none."""
    explored = search_budget(heat.bench, heat.run, budget_bits=heat.budget_bits, search=search)
    spent = Spent(
        first.forward_tokens + explored.spent.forward_tokens,
        first.backward_tokens + explored.spent.backward_tokens,
        first.seconds + explored.spent.seconds,
    )
    if not len(explored.trials):
        return Entrant(lane, (solve(heat.space, heat.run.table, heat.budget_bits).choice,), spent)
    trials = explored.trials.only(explored.trials.n_sequences == explored.trials.n_sequences.max())
    trials = trials.only(heat.space.total_bits(trials.choices) <= heat.budget_bits)
    return Entrant(lane, (trials.choices[trials.values[:, 0].argmin()],) if len(trials) else (), spent)


def rival(heat: Heat, found: dict[str, Any]) -> Entrant:
    """Return the choice that a rival's map is for our units; none where it has no map for this budget or seed."""
    spent = Spent(found["forward_tokens"], found["backward_tokens"], found["seconds"])
    matching = [answer for asked_for, answer in found["budgets"].items() if abs(float(asked_for) - stored(heat)) < 0.02]
    if not matching:
        return Entrant(found["rival"], (), spent)
    layers, index = matching[0]["layers"], {form.name: i for i, form in enumerate(heat.space.formats)}
    group = next(name.split("_")[1] for name in heat.run.settings.formats)
    choice = []
    for unit in heat.space.units:
        names = {piece.parameter.removesuffix(".weight") for tensor in unit.tensors for piece in heat.bench.model.pieces[tensor.name]}
        choice.append(index[f"INT{layers[names.pop()]}_{group}"])
    return Entrant(found["rival"], (np.array(choice, dtype=np.int64),), spent)


def stored(heat: Heat) -> float:
    """Stored bits per weight that is decided about, scales and minima included."""
    return (heat.budget_bits - heat.space.fixed_bits) / sum(unit.n_weights for unit in heat.space.units)


def problem(heat: Heat, start: Choice) -> Problem:
    """Problem of the heat that begins with one choice."""
    return Problem(heat.space, start[None], heat.bench.settings.n_calibration, heat.bench.settings.seed)


#: the reference: exchanges between units in the order of what the run's predictor thinks, for as long as it is let
LONG = replace(
    method_named("auto"),
    name="reference",
    for_budget=lambda context, bits: swaps(
        replace(context.problem, start=solve(context.problem.space, context.tables[0], bits).choice[None]),
        bits,
        Learning(lambda choices: (np.zeros(len(choices)), np.ones(len(choices))), context.refit(PREDICTOR, context.problem.space), 4, 8),
        LocalSearchOptions(),
    ),
)


def heats(args: argparse.Namespace) -> Iterator[tuple[int, Heat]]:
    """Every seed and budget, the runs priced as they come."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.maps.glob("*.json"))] if args.maps else []
    for seed in args.seeds:
        bench, run = opened(args, seed)
        everything = run.everything
        sizes = [int(everything.total_bits(everything.uniform(everything.formats[f]))) for f in np.flatnonzero(run.tried.any(axis=0))]
        for bits in args.budgets:
            budget_bits = int(np.interp(bits, sorted(args.bits), sorted(sizes)[: len(args.bits)])) // 8 * 8
            yield seed, Heat(bench, run, budget_bits, bits, tuple(answer for answer in found if answer["seed"] == seed))
        run.store.close()


def opened(args: argparse.Namespace, seed: int) -> tuple[LoadedRun, Run]:
    """The run of one calibration seed, priced."""
    args.out.mkdir(parents=True, exist_ok=True)
    text = args.out / f"calibration-{seed}.txt"
    if not text.exists():
        documents = read_documents(Path(args.calibration))
        parts = documents if len(documents) > 1 else [part for part in documents[0].split("\n \n") if part.strip()]
        text.write_text("<|endoftext|>".join(parts[i] for i in np.random.default_rng(seed).permutation(len(parts))), encoding="utf-8")
    group = f"G{args.group}" if args.group else "ROW"
    settings = Settings(
        model=args.model,
        target="integers",
        formats=tuple(f"INT{bits}_{group}" for bits in args.bits),
        calibration=str(text),
        held_out=args.held_out,
        n_calibration=args.sequences,
        n_held_out=args.held_out_sequences,
        sequence_length=args.length,
        sensitivity=args.sensitivity,
        codec=args.codec,
        seed=seed,
        skip=args.skip,
    )
    bench = set_up(settings, args.out / f"run-{seed}", device=args.device, progress=Silent())
    return bench, price(bench)


def measured(heat: Heat, seed: int, entry: Entrant) -> dict[str, Any]:
    """A row of the record: what the lane's choices are worth on held-out text."""
    measure(heat.bench, heat.run, list(entry.choices))
    known = heat.run.measurements
    values = [known[tuple(choice.tolist())] for choice in entry.choices]
    return {
        "seed": seed,
        "code_bits": heat.code_bits,
        "lane": entry.lane,
        "bytes": [heat.space.total_bytes(choice) for choice in entry.choices],
        "budget_bytes": heat.budget_bits // 8,
        "sequence_nats": np.mean([value.by_sequence[:, 0] for value in values], axis=0).tolist() if values else [],
        "perplexity": float(np.mean([value.perplexity for value in values])) if values else inf,
        "forward_tokens": entry.spent.forward_tokens,
        "backward_tokens": entry.spent.backward_tokens,
        "seconds": entry.spent.seconds,
    }


def ask(args: argparse.Namespace) -> None:
    """Write what the rivals are to be asked: the calibration tokens of each seed, and the budgets by our count."""
    for seed in args.seeds:
        bench, run = opened(args, seed)
        np.save(args.out / f"tokens-{seed}.npy", bench.texts.calibration.ids)
        run.store.close()
    budgets = sorted({round(stored(heat), 5) for _, heat in heats(args)})
    print(f"tokens of each seed in {args.out}/tokens-SEED.npy; stored bits per weight to ask for: {','.join(map(str, budgets))}")


def numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Parser of numbers separated by commas."""
    return lambda text: tuple(kind(part) for part in text.split(",") if part)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder of weights that were never quantized")
    parser.add_argument("--calibration", required=True, help="text for all lanes; documents are put in another order for each seed")
    parser.add_argument("--held-out", required=True, help="text to measure on")
    parser.add_argument("--out", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--maps", type=Path, help="folder of what the rivals answered")
    parser.add_argument("--ask", action="store_true", help="write what the rivals are to be asked, and stop")
    parser.add_argument("--bits", type=numbers(int), default=(2, 3, 4, 6), help="of the integers (default: 2,3,4,6)")
    parser.add_argument("--group", type=int, default=32, help="weights that share a scale; 0: the row (default: %(default)s)")
    parser.add_argument("--budgets", type=numbers(float), default=(2.5, 3.0, 3.5, 4.0, 5.0), help="bits of a code (default: 2.5,3,3.5,4,5)")
    parser.add_argument("--seeds", type=numbers(int), default=(0, 1, 2), help="of the calibration (default: 0,1,2)")
    parser.add_argument(
        "--methods",
        type=numbers(str),
        default=tuple(m.name for m in METHODS if m not in OF_EXPERTS),
        help="lanes of ours (default: all for any model)",
    )
    parser.add_argument("--evaluations", type=int, default=60, help="of each method at most (default: %(default)s)")
    parser.add_argument("--reference", type=int, default=300, help="evaluations of the reference, 0 for none (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=32, help="of calibration (default: %(default)s)")
    parser.add_argument("--held-out-sequences", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--skip", type=numbers(str), default=("token_embd*",), help="tensors to leave unquantized (default: token_embd*)")
    parser.add_argument("--sensitivity", default="gradient", help="what prices the table (default: %(default)s)")
    parser.add_argument("--codec", default="", help="of all lanes (default: round to nearest)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where torch works (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.ask:
        ask(args)
        return
    rows, methods = [], tuple(method_named(name) for name in args.methods)
    for seed, heat in heats(args):
        for entry in entries(heat, methods=methods, evaluations=args.evaluations, reference=args.reference):
            if entry.choices:
                rows.append(measured(heat, seed, entry))
                print(f"seed {seed}, {heat.code_bits:g} bits, {entry.lane}: {np.mean(rows[-1]['sequence_nats']):.4f}", flush=True)
        (args.out / "race.json").write_text(json.dumps({"model": args.model, "rows": rows}), encoding="utf-8")
    show({Path(args.model).name: rows})


if __name__ == "__main__":
    main()
