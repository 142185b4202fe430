"""The league: finished GGUF files against finished files, at no more bytes than the rival's, measured in llama.cpp on held-out text.

    python benchmarks/league.py MODEL --calibration cal.txt --held-out held.txt --out L --ask      # L/original.gguf, L/run/imatrix.gguf
    RIVALS/bin/python benchmarks/rivals/llama_cpp_mixes.py L/original.gguf --imatrix L/run/imatrix.gguf --out L/mixes.json --keep L/mixes
    python benchmarks/league.py MODEL --calibration cal.txt --held-out held.txt --out L --sizes Q4_0,Q5_0

A size is the bytes of the mix that names it. Lanes for each:
    llama.cpp X     the mixes of llama.cpp's quantizer with the importance matrix of the calibration text: that one, and smaller ones
    target size     `--method llama-quantize`, in the place of llama.cpp's proposed target size, with libggml's quantizers
    plain           our plan with libggml's quantizers, --evaluations plans measured
    obs             our plan of the same run with --ship-codec obs

The best rival is the one of the least divergence among the mixes that are no larger, and `target size`. Divergence from the original and agreement
of the most likely token are of the next token after each held-out context, both files run by llama.cpp; perplexity is of the text's own next
token. Differences are paired by context. AutoRound's export is not among the lanes: `rivals/autoround_scheme.py` asks it for maps of integers, and
its GGUF types need tuning on a GPU. Everything is kept in the folder, so an interrupted league goes on where it was.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.engines import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.objectives import standard_error
from bitwright.pipeline import Search, Settings, build, fit, method_named, open_run, plan
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.progress import Silent
from bitwright.spaces import Budget, parse_budget

TARGET_SIZE, PLAIN, OBS = "target size", "plain", "obs"
RIVAL_METHOD = "llama-quantize"


@dataclass(frozen=True, eq=False)
class Contexts:
    """Held-out contexts of token ids, the token after each `(n_contexts,)`, and the original's log-probabilities `(n_contexts, n_vocabulary)`."""

    ids: list[list[int]]
    following: NDArray[np.int64]
    original: NDArray[np.float64]

    def scores(self, path: Path) -> dict[str, list[float]]:
        """Divergence in nats, −log probability of the text's token, and agreement of the most likely token, after each context."""
        found = distributions(path, self.ids, n_vocabulary=self.original.shape[1])
        nats = (np.exp(self.original) * (self.original - found)).sum(axis=1)
        surprise = -found[np.arange(len(found)), self.following]
        agrees = found.argmax(axis=1) == self.original.argmax(axis=1)
        return {"nats": nats.tolist(), "surprise": surprise.tolist(), "agrees": agrees.astype(float).tolist()}


def distributions(path: Path, contexts: list[list[int]], *, n_vocabulary: int) -> NDArray[np.float64]:
    """Return llama.cpp's log-probabilities `(n_contexts, n_vocabulary)` of the token after each context."""
    engine = LlamaCpp(path, n_vocabulary=n_vocabulary, n_threads=1)
    return np.stack([engine.next_token(context) for context in contexts])


def contexts_of(bench: LoadedRun, original: Path, n: int) -> Contexts:
    """Return `n` contexts of the held-out text, of eight lengths up to that of a sequence less one token."""
    sequences = bench.texts.held_out.ids
    length = sequences.shape[1] - 1
    places = [(i % len(sequences), max(2, length * (i % 8 + 1) // 8 - i // len(sequences))) for i in range(n)]
    ids = [sequences[row, :end].tolist() for row, end in places]
    n_vocabulary = int(bench.model.module.config.get_text_config().vocab_size)
    following = np.array([sequences[row, end] for row, end in places], dtype=np.int64)
    return Contexts(ids, following, distributions(original, ids, n_vocabulary=n_vocabulary))


def ours(settings: Settings, size: Budget, out: Path, *, evaluations: int) -> dict[str, Path]:
    """Build the files of our lanes for a size, and return them by lane; those that are there already stay."""
    files = {lane: out / "files" / f"{size.text} {lane}.gguf" for lane in (TARGET_SIZE, PLAIN, OBS)}
    files[PLAIN].parent.mkdir(exist_ok=True)
    if not files[TARGET_SIZE].exists():
        by = Search(method_named(RIVAL_METHOD), evaluations=1, as_published=True)
        build(fit(settings, size, out / "target-size", by=by, progress=Silent()).plan, files[TARGET_SIZE])
    if not files[PLAIN].exists():
        build(fit(settings, size, out / "run", by=Search(method_named("auto"), evaluations=evaluations), progress=Silent()).plan, files[PLAIN])
    if not files[OBS].exists():
        build(plan(open_run(out / "run"), size, ship_codec="obs", progress=Silent())[0], files[OBS])
    return files


def league(bench: LoadedRun, out: Path, mixes: dict[str, Path], *, sizes: list[str], evaluations: int, n_contexts: int) -> None:
    """Print every lane of every size, and the geometric means of our lanes over the best rival."""
    contexts = contexts_of(bench, out / "original.gguf", n_contexts)
    record = out / "league.json"
    known: dict[str, dict[str, list[float]]] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    ratios: dict[str, list[float]] = {PLAIN: [], OBS: []}
    print("| bytes | file | bytes of it | nats per token | above the best rival | perplexity | top-1 |\n|---|---|---|---|---|---|---|")
    for name in sizes:
        n_bytes = mixes[name].stat().st_size
        files = {f"llama.cpp {other}": path for other, path in mixes.items() if path.stat().st_size <= n_bytes}
        files |= ours(bench.settings, parse_budget(f"{n_bytes}B"), out, evaluations=evaluations)
        for path in files.values():
            if path.stat().st_size > n_bytes:
                raise SystemExit(f"{path} has more than {n_bytes:,} bytes")
            key = f"{path.name} {n_contexts}"
            known[key] = known.get(key) or contexts.scores(path)
            record.write_text(json.dumps(known), encoding="utf-8")
        scores = {lane: known[f"{path.name} {n_contexts}"] for lane, path in files.items()}
        best = min((lane for lane in scores if lane not in ratios), key=lambda lane: float(np.mean(scores[lane]["nats"])))
        shown = {lane for lane in scores if lane in (best, f"llama.cpp {name}", TARGET_SIZE, *ratios)}
        for lane in sorted(shown, key=lambda lane: -float(np.mean(scores[lane]["nats"]))):
            print(row(n_bytes, lane, files[lane].stat().st_size, scores[lane], best=np.array(scores[best]["nats"])), flush=True)
        for lane, of_lane in ratios.items():
            of_lane.append(float(np.mean(scores[lane]["nats"]) / np.mean(scores[best]["nats"])))
    for lane, of_lane in ratios.items():
        mean = np.exp(np.mean(np.log(of_lane)))
        print(f"{lane}: geometric mean {mean:.3f} of the best rival's over {len(of_lane)} sizes, worst {max(of_lane):.3f}")


def row(n_bytes: int, lane: str, size_bytes: int, scores: dict[str, list[float]], *, best: NDArray[np.float64]) -> str:
    """Return a row of the table."""
    nats = np.array(scores["nats"])
    above = nats - best
    difference = f"{above.mean():+.4f} ± {standard_error(above):.4f} ({nats.mean() / best.mean():.3f})" if above.any() else ""
    perplexity, agreement = np.exp(np.mean(scores["surprise"])), np.mean(scores["agrees"])
    return (
        f"| {n_bytes:,} | {lane} | {size_bytes:,} | {nats.mean():.4f} ± {standard_error(nats):.4f} | {difference} | {perplexity:.2f} "
        f"| {agreement:.3f} |"
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file of weights that were never quantized")
    parser.add_argument("--calibration", required=True, help="text to calibrate on")
    parser.add_argument("--held-out", required=True, help="text to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, files and figures")
    parser.add_argument("--ask", action="store_true", help="write what the quantizer of llama.cpp is given, and stop")
    parser.add_argument("--sizes", default="", help="mixes whose bytes are the sizes, separated by commas (default: all)")
    parser.add_argument("--evaluations", type=int, default=16, help="plans that a search may measure (default: %(default)s)")
    parser.add_argument("--contexts", type=int, default=256, help="held-out contexts (default: %(default)s)")
    parser.add_argument("--formats", default="", help="of our plans, separated by commas (default: all)")
    parser.add_argument("--sequences", type=int, default=64, help="for calibration (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the calibration text (default: %(default)s)")
    args = parser.parse_args()
    settings = Settings(
        args.model,
        formats=tuple(name for name in args.formats.split(",") if name),
        calibration=args.calibration,
        held_out=args.held_out,
        n_calibration=args.sequences,
        seed=args.seed,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    bench = set_up(settings, args.out / "run", device="cpu", progress=Silent())
    if args.ask:
        _ = bench.levels  # collects the importance matrix into the folder of the run
        write_gguf(args.out / "original.gguf", Recipe(bench.model.source, {}), bench.model.source.stored)
        return
    mixes = {path.stem: path for path in sorted((args.out / "mixes").glob("*.gguf"))}
    sizes = [name for name in args.sizes.split(",") if name] or sorted(mixes, key=lambda name: mixes[name].stat().st_size)
    league(bench, args.out, mixes, sizes=sizes, evaluations=args.evaluations, n_contexts=args.contexts)


if __name__ == "__main__":
    main()
