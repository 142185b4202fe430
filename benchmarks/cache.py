"""Types of the KV cache: what each costs in torch and in llama.cpp, and what it brings to give up bits of the cache for bits of the weights.

    python benchmarks/cache.py types MODEL TEXT                        # every type, for keys and for values alone
    python benchmarks/cache.py contexts MODEL TEXT                     # how far it depends on the length of the sequences
    python benchmarks/cache.py compete MODEL CALIBRATION HELD_OUT --out RUN/ --at 352MB:8192,185MB:512

MODEL is a folder of float weights, on which the engine rounds no activations that would hide a fine type. `compete` prices once, and then solves
every memory and context with the types decided with the weights and with types that are fixed; all are measured on the same held-out tokens. A run
that was interrupted goes on.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bitwright as bw
from bitwright.compress import Model, load, open_source, quantized_cache
from bitwright.engines import Recipe
from bitwright.engines.check_result import mean_divergence
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.errors import BudgetError
from bitwright.objectives import KullbackLeibler, Reference, Shape, Tokens, next_token_log_probabilities, read_documents, split_texts, standard_error
from bitwright.pipeline import Memory, Run
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.planning.size_limits import bounded
from bitwright.pipeline.pricing.run_space import price
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import ANY_CACHE, DEFAULT_CACHE, AnyCacheTypes, CacheTypes, Choice, chosen_cache, file_bytes
from bitwright.spaces.cache import CACHE_MENU

N_CONTEXTS, N_SEQUENCES, LENGTH = 12, 16, 128
LENGTHS, N_LONG, PIECE = (256, 1024, 4096), 2, 256
FORMATS = ("Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", "Q3_K")
RIVALS = (ANY_CACHE, DEFAULT_CACHE, CacheTypes("Q8_0", "Q8_0"), CacheTypes("Q4_0", "Q4_0"))


def at_tokens(model: Model, types: CacheTypes, reference: Reference) -> NDArray[np.float64]:
    """Return the divergence in nats at each token `(n_sequences, length)` of the model with its keys and values cached in these types."""
    with quantized_cache(model, types):
        return reference.compare(model, (KullbackLeibler(),))[0]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsers = parser.add_subparsers(required=True)
    types = parsers.add_parser("types")
    types.add_argument("model")
    types.add_argument("text", type=Path)
    types.add_argument("--types", default=",".join(CACHE_MENU[1:]))
    types.set_defaults(run=lambda args: print_types(args.model, args.text, args.types.split(",")))
    contexts = parsers.add_parser("contexts")
    contexts.add_argument("model")
    contexts.add_argument("text", type=Path)
    contexts.add_argument("--types", default="Q8_0,Q4_0,IQ4_NL")
    contexts.set_defaults(run=lambda args: print_lengths(args.model, args.text, args.types.split(",")))
    compete = parsers.add_parser("compete")
    compete.add_argument("model")
    compete.add_argument("calibration")
    compete.add_argument("held_out")
    compete.add_argument("--out", type=Path, required=True)
    compete.add_argument("--at", default="352MB:8192,185MB:512")
    compete.set_defaults(run=lambda args: print_rivals(args))
    args = parser.parse_args()
    args.run(args)


def print_types(name: str, text: Path, types: list[str]) -> None:
    """Print the divergence of each pair of cache types, in torch and in llama.cpp."""
    print("Divergence from a cache of F16, nats/token; last: torch against llama.cpp with the same types")
    print(f"{'keys':8}{'values':8}{'in torch':>20}{'in llama.cpp':>20}{'between them':>20}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for keys, values, *found in measured_types(name, text, types, Path(scratch)):
            print(f"{keys:8}{values:8}" + "".join(f"{mean:>20}" for mean in found), flush=True)


def measured_types(name: str, text: Path, names: list[str], scratch: Path) -> Iterator[tuple[str, ...]]:
    """Yield keys' and values' types, and their divergence in torch, in llama.cpp, and between the two."""
    model, file = load(name), scratch / "model.gguf"
    source = open_source(name)
    floats = {tensor.name: "F32" for tensor in source.tensors}  # the engine is many times slower with BF16 on most processors
    GgufContainer().write(file, Recipe(source, floats), lambda tensor: source.read(tensor).reshape(-1).view(np.uint8))
    contexts = list(split_texts(read_documents(text), model.tokenizer, Shape(0, N_CONTEXTS, LENGTH), name=text.name).held_out.ids)
    in_torch = next_token_log_probabilities(model, contexts)
    in_engine = engine(file, DEFAULT_CACHE, contexts, in_torch.shape[1])
    yield "F16", "F16", "", "", str(mean_divergence(in_torch, in_engine))
    for name_of_type in names:
        for types in (CacheTypes(keys=name_of_type), CacheTypes(values=name_of_type)):
            with quantized_cache(model, types):
                ours = next_token_log_probabilities(model, contexts)
            theirs = engine(file, types, contexts, in_torch.shape[1])
            found = (mean_divergence(in_torch, ours), mean_divergence(in_engine, theirs), mean_divergence(ours, theirs))
            yield types.keys, types.values, *(str(mean) for mean in found)


def print_lengths(name: str, text: Path, types: list[str]) -> None:
    """Print the divergence of cache types on the same text cut into sequences of each length."""
    model = load(name)
    ids = split_texts(read_documents(text), model.tokenizer, Shape(0, N_LONG, max(LENGTHS)), name=text.name).held_out.ids
    print(f"Divergence from a cache of F16, nats/token, over the same {ids.size:,} tokens as sequences of so many; below it the difference from the")
    print(f"shortest, paired; standard errors over pieces of {PIECE} tokens")
    print(f"{'':16}" + "".join(f"{length:>20}" for length in LENGTHS), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        references = [
            Reference(model, Tokens(ids.reshape(-1, length), text.name), scratch=Path(scratch) / str(length), progress=Silent()) for length in LENGTHS
        ]
        for name_of_type in types:
            for side, of in (("keys", CacheTypes(keys=name_of_type)), ("values", CacheTypes(values=name_of_type))):
                pieces = [at_tokens(model, of, reference).reshape(-1, PIECE).mean(axis=1) for reference in references]
                print(f"{side:8}{name_of_type:8}" + "".join(f"{mean_and_error(nats):>20}" for nats in pieces))
                print(f"{'':16}" + "".join(f"{mean_and_error(nats - pieces[0]):>20}" for nats in pieces), flush=True)


def mean_and_error(nats: NDArray[np.float64]) -> str:
    """Format a mean and its standard error."""
    return f"{nats.mean():.5f} ± {standard_error(nats):.5f}"


def engine(file: Path, types: CacheTypes, contexts: list[NDArray[np.int64]], n_vocabulary: int) -> NDArray[np.float64]:
    """Log-probabilities of the token after each context `(n_contexts, n_vocabulary)`, computed by llama.cpp."""
    loaded = LlamaCpp(file, n_vocabulary=n_vocabulary, n_threads=1, cache=types)
    return np.stack([loaded.next_token(context.tolist()) for context in contexts])


def print_rivals(args: argparse.Namespace) -> None:
    """Print the best plans within each memory with cache types chosen and fixed."""
    settings = bw.Settings(
        args.model,
        formats=FORMATS,
        calibration=args.calibration,
        held_out=args.held_out,
        n_calibration=N_SEQUENCES,
        n_held_out=N_SEQUENCES,
        sequence_length=LENGTH,
        cache_types=str(ANY_CACHE),
        cache_length=LENGTH,
    )
    bench = set_up(settings, args.out, device="cpu", progress=Silent())
    run = price(bench)
    print_prices(run)
    cases = [(memory, int(context)) for memory, context in (pair.split(":") for pair in args.at.split(","))]
    optima = {(case, types): optimum(run, *case, types) for case in cases for types in RIVALS}
    measure(bench, run, [choice for choice in optima.values() if len(choice)])
    print("Exact optima of one table at equal memory; held-out nats/token, and how much more than with types decided by the search (paired)")
    print(f"{'memory':10}{'context':>8}  {'asked for':12}{'cache':14}{'file, MB':>10}{'nats/token':>20}{'more':>22}")
    for case in cases:
        ours = np.array(run.measurements[tuple(optima[case, ANY_CACHE].tolist())].by_sequence[:, 0])
        for types in RIVALS:
            print(f"{case[0]:10}{case[1]:>8}  {types!s:12}" + figures(run, optima[case, types], ours), flush=True)


def print_prices(run: Run) -> None:
    """Print the price of each cache type alone, on the calibration text."""
    names = [form.name for form in run.space.formats]
    print("Prices of the types of the cache, nats/token")
    for what, row in zip(("keys", "values"), run.table[-2:], strict=True):
        print(f"{what:8}" + "".join(f"{name:>8}{row[names.index(name)]:>9.5f}" for name in CACHE_MENU[1:]), flush=True)


def optimum(run: Run, memory: str, context: int, types: CacheTypes | AnyCacheTypes) -> Choice:
    """The best choice `(n_units,)` by the run's table, empty where nothing fits."""
    try:
        limited, size_bytes = bounded(run, Memory(bw.parse_budget(memory), context, 1, types))
    except BudgetError:
        return np.empty(0, dtype=np.int64)
    return solve(limited.space, run.table, 8 * size_bytes).choice


def figures(run: Run, choice: Choice, ours: NDArray[np.float64]) -> str:
    """Format a choice's cache types, size, divergence, and its paired difference from `ours`."""
    if not len(choice):
        return "nothing fits, or the original does"
    nats, space = np.array(run.measurements[tuple(choice.tolist())].by_sequence[:, 0]), run.space
    more = nats - ours
    return (
        f"{chosen_cache(space, choice)!s:14}{file_bytes(space, choice) / 1e6:>10.1f}{nats.mean():>11.4f} ± {standard_error(nats):.4f}"
        f"{more.mean():>+13.4f} ± {standard_error(more):.4f}"
    )


if __name__ == "__main__":
    main()
