"""Mixes of llama.cpp's own quantizer: the type of every tensor in each of them, and the size of the file, as JSON.

Runs `llama_model_quantize` of the llama.cpp that llama-cpp-python is built with, in an environment of its own (README.md beside this file), and
reads the types back from the file it wrote, so every rule and fallback of llama.cpp is its own.
"""

import argparse
import ctypes
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import llama_cpp.llama_cpp as library
import numpy as np
from gguf import GGUFReader

MIXES = "Q2_K,IQ3_XXS,IQ3_S,IQ3_M,Q3_K_S,Q3_K_M,Q3_K_L,IQ4_XS,IQ4_NL,Q4_0,Q4_1,Q4_K_S,Q4_K_M,Q5_0,Q5_1,Q5_K_S,Q5_K_M,Q6_K,Q8_0"
SUMS, COUNTS = ".in_sum2", ".counts"


class Importance:
    """An imatrix file as the array that `llama_model_quantize` takes: mean squared activations by tensor, ended by an entry without a name."""

    def __init__(self, path: Path) -> None:
        stored = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in GGUFReader(path).tensors}
        self._means = {name.removesuffix(SUMS).encode(): _means(stored, name) for name in stored if name.endswith(SUMS)}
        self.entries = (library.llama_model_imatrix_data * (len(self._means) + 1))()
        for entry, (name, values) in zip(self.entries, self._means.items(), strict=False):
            entry.name, entry.size = name, values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _means(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    counts = stored[name.removesuffix(SUMS) + COUNTS].reshape(-1, 1)
    return np.ascontiguousarray(stored[name].reshape(len(counts), -1) / np.maximum(counts, 1), dtype=np.float32).ravel()


def mix(original: Path, importance: Importance, name: str, *, n_threads: int) -> dict[str, object]:
    """The types of one mix's tensors, its bytes, and the seconds that quantizing took."""
    began = time.perf_counter()
    settings = library.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = getattr(library, f"LLAMA_FTYPE_MOSTLY_{name}"), n_threads
    settings.imatrix = ctypes.cast(importance.entries, type(settings.imatrix))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mix.gguf"
        status = library.llama_model_quantize(bytes(original), bytes(path), ctypes.byref(settings))
        if status:
            raise SystemExit(f"llama.cpp refused to write {name} (status {status})")
        formats = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
        return {"formats": formats, "size_bytes": path.stat().st_size, "seconds": time.perf_counter() - began}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("original", type=Path, help="GGUF file of 16-bit weights")
    parser.add_argument("--imatrix", type=Path, required=True, help="imatrix.gguf of the run folder that the mixes are compared in")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, for quality.py --mixes")
    parser.add_argument("--mixes", default=MIXES, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()

    importance, found = Importance(args.imatrix), {}
    for name in args.mixes.split(","):
        found[name] = mix(args.original, importance, name, n_threads=args.threads)
        print(f"{name:8} {found[name]['size_bytes']:12,} bytes {found[name]['seconds']:6.1f} s", flush=True)
        args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
