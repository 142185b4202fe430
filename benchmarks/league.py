"""The league: finished GGUF files against finished files, at no more bytes than the rival's, measured in llama.cpp on held-out text.

    python benchmarks/league.py MODEL --calibration cal.txt --held-out held.txt --out L --ask      # original.gguf, tokens.npy, run/imatrix.gguf in L
    RIVALS/bin/python benchmarks/rivals/llama_cpp_mixes.py L/original.gguf --imatrix L/run/imatrix.gguf --out L/mixes.json --keep L/mixes
    MAPS/bin/python benchmarks/rivals/autoround_gguf.py MODEL L/tokens.npy --mix Q4_K_M --keep L/mixes
    python benchmarks/league.py MODEL --calibration cal.txt --held-out held.txt --out L --sizes Q4_0,Q5_0,80MB

A size is the bytes of the mix that names it, or a budget. Lanes for each:
    llama.cpp X     mixes of llama.cpp's quantizer with the importance matrix of the calibration text: the --rivals largest that are no larger
    AutoRound X     the same mixes as AutoRound exports them, of those that were made and are no larger than the size
    target size     `--method llama-quantize`, in the place of llama.cpp's proposed target size, with libggml's quantizers
    plain           our plan with libggml's quantizers, --evaluations plans measured
    obs             our plan of the same run with --ship-codec obs; with --one-candidate, the best plan of the search is the only candidate of both

The best rival is the one of the least divergence among the mixes and `target size`. Divergence from the original and agreement of the most likely
token are of the next token after each held-out context, both files run by llama.cpp; perplexity is of the text's own next token. Differences are
paired by context. The last lines compare our `obs` files with the best rivals of which they have 0.8 to 0.855 of the bytes, all mixes included.
Everything is kept in the folder, so an interrupted league goes on where it was.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
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

AUTOROUND = "AutoRound"  # of names of files
TARGET_SIZE, PLAIN, OBS = "target size", "plain", "obs"
RIVAL_METHOD = "llama-quantize"
SMALLER = (0.8, 0.855)  # of a rival's bytes
BETWEEN, GOLDEN = "<|endoftext|>", 0.618034  # multiples of the golden ratio repeat no part of the spacing of sequences
Scores = dict[str, list[float]]


@dataclass(frozen=True, eq=False)
class Contexts:
    """Held-out contexts of token ids, the token after each `(n_contexts,)`, and the original's log-probabilities `(n_contexts, n_vocabulary)`."""

    ids: list[NDArray[np.int64]]
    following: NDArray[np.int64]
    original: NDArray[np.float64]

    def scores(self, path: Path) -> Scores:
        """Divergence in nats, −log probability of the text's token, and agreement of the most likely token, after each context."""
        found = distributions(path, self.ids, self.original)
        nats = (np.exp(self.original) * (self.original - found)).sum(axis=1)
        surprise = -found[np.arange(len(found)), self.following]
        agrees = found.argmax(axis=1) == self.original.argmax(axis=1)
        return {"nats": nats.tolist(), "surprise": surprise.tolist(), "agrees": agrees.astype(float).tolist()}


@dataclass(frozen=True, eq=False)
class Entry:
    """File of a lane at a size, and its scores."""

    lane: str
    size_bytes: int
    scores: Scores

    @property
    def nats(self) -> NDArray[np.float64]:
        """Divergence after each context, `(n_contexts,)`."""
        return np.array(self.scores["nats"])


def distributions(path: Path, contexts: list[NDArray[np.int64]], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return llama.cpp's log-probabilities `(n_contexts, n_vocabulary)` of the token after each context. Of a large vocabulary it tells those of the
    most likely tokens; the others share what is left as in `like`.
    """
    return LlamaCpp(path, n_vocabulary=like.shape[1], n_threads=1).next_tokens(contexts, like)


def contexts_of(bench: LoadedRun, original: Path, n: int) -> Contexts:
    """Return `n` contexts of the held-out text: every sequence up to evenly spaced lengths, so that each token is computed once."""
    sequences = bench.texts.held_out.ids
    length, n_lengths = sequences.shape[1] - 1, -(-n // len(sequences))
    places = [(i // n_lengths, max(2, length * (i % n_lengths + 1) // n_lengths)) for i in range(n)]
    ids = [sequences[row, :end] for row, end in places]
    n_vocabulary = int(bench.model.module.config.get_text_config().vocab_size)
    following = np.array([sequences[row, end] for row, end in places], dtype=np.int64)
    return Contexts(ids, following, distributions(original, ids, np.zeros((len(ids), n_vocabulary))))


@dataclass(frozen=True)
class Effort:
    """Plans that a search measures, whether its best is the only candidate, mixes of llama.cpp at a size, and contexts."""

    evaluations: int
    one_candidate: bool
    n_rivals: int
    n_contexts: int


def ours(settings: Settings, size: Budget, out: Path, effort: Effort) -> dict[str, Path]:
    """Build the files of our lanes for a size, and return them by lane; those that are there already stay."""
    files = {lane: out / "files" / f"{size.text} {lane}.gguf" for lane in (TARGET_SIZE, PLAIN, OBS)}
    files[PLAIN].parent.mkdir(exist_ok=True)
    auto = Search(method_named("auto"), evaluations=effort.evaluations, as_published=effort.one_candidate)
    if not files[TARGET_SIZE].exists():
        by = Search(method_named(RIVAL_METHOD), evaluations=1, as_published=True)
        fit(settings, size, out / "target-size", by=by, progress=Silent()).model.rename(files[TARGET_SIZE])
    if not files[PLAIN].exists():
        fit(settings, size, out / "run", by=auto, progress=Silent()).model.rename(files[PLAIN])
    if not files[OBS].exists() and effort.one_candidate:
        shipping = replace(settings, ship_codec="obs")
        fit(shipping, size, out / "run", by=auto, progress=Silent()).model.rename(files[OBS])
    elif not files[OBS].exists():
        build(plan(open_run(out / "run"), size, ship_codec="obs", progress=Silent())[0], files[OBS])
    return files


def rotated(text: Path, seed: int, out: Path) -> Path:
    """Return the calibration text of a seed: the text itself for 0, else a file in `out` that begins at another document, or line where there is but
    one, so that the sequences spread over it are others.
    """
    if not seed:
        return text
    whole = text.read_text(encoding="utf-8")
    between = BETWEEN if BETWEEN in whole else "\n"
    parts = whole.split(between)
    first = int(len(parts) * (seed * GOLDEN % 1))
    found = out / "calibration.txt"
    found.write_text(between.join(parts[first:] + parts[:first]), encoding="utf-8")
    return found


class League:
    """League of one model: the mixes by name, and what was scored so far, which is kept in the folder `out`."""

    def __init__(self, bench: LoadedRun, out: Path, mixes: dict[str, Path], effort: Effort) -> None:
        self._bench, self._out, self._mixes, self._effort = bench, out, mixes, effort
        self._record = out / "league.json"
        self._known: dict[str, Scores] = json.loads(self._record.read_text(encoding="utf-8")) if self._record.is_file() else {}

    @cached_property
    def _contexts(self) -> Contexts:
        return contexts_of(self._bench, self._out / "original.gguf", self._effort.n_contexts)

    def larger(self, entry: Entry, found: Iterable[Entry]) -> list[Entry]:
        """Return the rivals of which an entry has 0.8 to 0.855 of the bytes: those `found` at any size, and all mixes."""
        mixes = {self._lane(name): path for name, path in self._mixes.items() if smaller(entry.size_bytes, path.stat().st_size)}
        known = [rival for rival in found if rival.lane == TARGET_SIZE and smaller(entry.size_bytes, rival.size_bytes)]
        return known + [Entry(lane, path.stat().st_size, self._scored(path)) for lane, path in mixes.items()]

    def entries(self, size: Budget) -> list[Entry]:
        """Return every lane of a size, and print it: the best rival, the mix nearest below, and what is ours."""
        n_bytes = size.size_bytes(sum(tensor.n_weights for tensor in self._bench.model.tensors))
        fitting = sorted((-path.stat().st_size, name) for name, path in self._mixes.items() if path.stat().st_size <= n_bytes)
        of_llama = [name for _, name in fitting if not name.startswith(AUTOROUND)][: self._effort.n_rivals]
        of_autoround = [name for _, name in fitting if name.startswith(AUTOROUND)]
        files = {self._lane(name): self._mixes[name] for name in of_llama + of_autoround}
        files |= ours(self._bench.settings, size, self._out, self._effort)
        found = [Entry(lane, path.stat().st_size, self._scored(path)) for lane, path in files.items()]
        if any(entry.size_bytes > n_bytes for entry in found):
            raise SystemExit(f"a file of {size.text} has more than {n_bytes:,} bytes")
        best = best_rival(found)
        for entry in sorted(found, key=lambda entry: -entry.nats.mean()):
            if entry in (best, found[0]) or not entry.lane.startswith("llama.cpp"):
                print(row(n_bytes, entry, best.nats), flush=True)
        return found

    @staticmethod
    def _lane(name: str) -> str:
        return name if name.startswith(AUTOROUND) else f"llama.cpp {name}"

    def _scored(self, path: Path) -> Scores:
        key = f"{path.name}, {self._effort.n_contexts} contexts"
        if key not in self._known:
            self._known[key] = self._contexts.scores(path)
            self._record.write_text(json.dumps(self._known), encoding="utf-8")
        return self._known[key]


def best_rival(entries: Iterable[Entry]) -> Entry:
    """Return the entry of the least divergence that is not ours."""
    return min((entry for entry in entries if entry.lane not in (PLAIN, OBS)), key=lambda entry: float(entry.nats.mean()))


def smaller(n_bytes: int, of: int) -> bool:
    """Return whether a file of `n_bytes` is to be compared with a larger one `of` so many."""
    return SMALLER[0] <= n_bytes / of <= SMALLER[1]


def summed_up(league: League, by_size: list[list[Entry]]) -> None:
    """Print the geometric means of our lanes over the best rival, and our files against rivals that are larger."""
    for lane in (PLAIN, OBS):
        ratios = [float(entry.nats.mean() / best_rival(found).nats.mean()) for found in by_size for entry in found if entry.lane == lane]
        print(f"{lane}: geometric mean {np.exp(np.mean(np.log(ratios))):.3f} of the best rival's over {len(ratios)} sizes, worst {max(ratios):.3f}")
    every = [entry for found in by_size for entry in found]
    for entry in (entry for entry in every if entry.lane == OBS):
        if larger := league.larger(entry, every):
            best = best_rival(larger)
            above = entry.nats - best.nats
            print(
                f"obs of {entry.size_bytes:,} bytes, {entry.size_bytes / best.size_bytes:.2f} of {best.lane}'s: {entry.nats.mean():.4f}, "
                f"{above.mean():+.4f} ± {standard_error(above):.4f} ({entry.nats.mean() / best.nats.mean():.3f})"
            )


def row(n_bytes: int, entry: Entry, best: NDArray[np.float64]) -> str:
    """Return a row of the table."""
    nats, above = entry.nats, entry.nats - best
    difference = f"{above.mean():+.4f} ± {standard_error(above):.4f} ({nats.mean() / best.mean():.3f})" if above.any() else ""
    perplexity, agreement = np.exp(np.mean(entry.scores["surprise"])), np.mean(entry.scores["agrees"])
    return (
        f"| {n_bytes:,} | {entry.lane} | {entry.size_bytes:,} | {nats.mean():.4f} ± {standard_error(nats):.4f} | {difference} | {perplexity:.2f} "
        f"| {agreement:.3f} |"
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file of weights that were never quantized")
    parser.add_argument("--calibration", type=Path, required=True, help="text to calibrate on")
    parser.add_argument("--held-out", required=True, help="text to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, files and figures")
    parser.add_argument("--ask", action="store_true", help="write what the quantizer of llama.cpp is given, and stop")
    parser.add_argument("--sizes", default="", help="mixes whose bytes are the sizes, and budgets, separated by commas (default: all mixes)")
    parser.add_argument("--evaluations", type=int, default=16, help="plans that a search may measure (default: %(default)s)")
    parser.add_argument(
        "--one-candidate", action="store_true", help="ship the best plan of the search, no optimum of the table or uniform allocation"
    )
    parser.add_argument("--rivals", type=int, default=3, help="mixes of llama.cpp at each size (default: %(default)s)")
    parser.add_argument("--contexts", type=int, default=256, help="held-out contexts (default: %(default)s)")
    parser.add_argument("--formats", default="", help="of our plans, separated by commas (default: all)")
    parser.add_argument("--sequences", type=int, default=64, help="for calibration (default: %(default)s)")
    parser.add_argument("--dtype", default="", help="of the model's arithmetic in the search (default: float32)")
    parser.add_argument("--seed", type=int, default=0, help="of the search, and where the calibration text begins (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        args.model,
        formats=tuple(name for name in args.formats.split(",") if name),
        calibration=str(rotated(args.calibration, args.seed, args.out)),
        held_out=args.held_out,
        n_calibration=args.sequences,
        seed=args.seed,
        dtype=args.dtype,
    )
    bench = set_up(settings, args.out / "run", device="cpu", progress=Silent())
    if args.ask:
        _ = bench.levels  # collects the importance matrix into the folder of the run
        np.save(args.out / "tokens.npy", bench.texts.calibration.ids)
        write_gguf(args.out / "original.gguf", Recipe(bench.model.source, {}), bench.model.source.stored)
        return
    mixes = {path.stem: path for path in sorted((args.out / "mixes").glob("*.gguf"))}
    named = [name for name in args.sizes.split(",") if name] or sorted(mixes, key=lambda name: mixes[name].stat().st_size)
    sizes = [parse_budget(f"{mixes[name].stat().st_size}B" if name in mixes else name) for name in named]
    one = League(bench, args.out, mixes, Effort(args.evaluations, args.one_candidate, args.rivals, args.contexts))
    print("| bytes | file | bytes of it | nats per token | above the best rival | perplexity | top-1 |\n|---|---|---|---|---|---|---|")
    summed_up(one, [one.entries(size) for size in sizes])


if __name__ == "__main__":
    main()
