"""Decode time of finished files in llama.cpp, side by side in one process: seconds for a token, the least of several turns.

    python benchmarks/decode_time.py FORMATS.gguf STRUCTURE.gguf --tokens 32 --turns 7

The files take turns, so that what else the machine does meets all of them. On one thread the processor's time counts, as in `bitwright profile`.
"""

import argparse
from pathlib import Path

from bitwright.compress import GgufSource
from bitwright.engines.llama_cpp.runtime import LlamaCpp


def main() -> None:
    """Print a row for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    said = parser.parse_args()
    engines = {path: LlamaCpp(path, n_vocabulary=_vocabulary(path), n_threads=said.threads, context=512) for path in said.files}
    least = dict.fromkeys(said.files, float("inf"))
    for _ in range(said.turns):
        for path, engine in engines.items():
            least[path] = min(least[path], engine.seconds_per_token(said.tokens))
    print("| file | MB | ms a token | of the first |\n|---|---|---|---|")
    for path, seconds in least.items():
        print(f"| {path} | {path.stat().st_size / 1e6:.3f} | {1e3 * seconds:.3f} | {seconds / least[said.files[0]]:.3f} |")


def _vocabulary(path: Path) -> int:
    return next(tensor.shape[0] for tensor in GgufSource(path).tensors if tensor.name == "token_embd.weight")


if __name__ == "__main__":
    main()
