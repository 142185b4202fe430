"""Mixes of llama.cpp's own quantizer: the type of every tensor in each of them, and the size of the file, as JSON; with --keep also the files.

Runs `llama_model_quantize` of the llama.cpp that llama-cpp-py-sync brings, in an environment of its own (README.md beside this file), and
reads the types back from the file it wrote, so every rule and fallback of llama.cpp is its own.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

MIXES = (
    "IQ2_XXS,IQ2_XS,IQ2_S,IQ2_M,Q2_K,IQ3_XXS,IQ3_S,IQ3_M,Q3_K_S,Q3_K_M,Q3_K_L,IQ4_XS,IQ4_NL,Q4_0,Q4_1,Q4_K_S,Q4_K_M,Q5_0,Q5_1,Q5_K_S,Q5_K_M,Q6_K,Q8_0"
)
SUMS, COUNTS = ".in_sum2", ".counts"


class Importance:
    """An imatrix file as the array that `llama_model_quantize` takes: mean squared activations by tensor, ended by an entry without a name."""

    def __init__(self, path: Path, ffi: Any) -> None:
        stored = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in GGUFReader(path).tensors}
        means = {name.removesuffix(SUMS): _means(stored, name) for name in stored if name.endswith(SUMS)}
        self.entries = ffi.new("struct llama_model_imatrix_data[]", len(means) + 1)
        self._held: list[Any] = []  # what the entries point to
        for entry, (name, values) in zip(self.entries, means.items(), strict=False):
            text, data = ffi.new("char[]", name.encode()), ffi.from_buffer("float[]", values)
            entry.name, entry.data, entry.size = text, data, values.size
            self._held += [text, data, values]


def _means(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    counts = stored[name.removesuffix(SUMS) + COUNTS].reshape(-1, 1)
    return np.ascontiguousarray(stored[name].reshape(len(counts), -1) / np.maximum(counts, 1), dtype=np.float32).ravel()


def opened(ffi: Any, path: Path | None) -> Any:
    """Library of llama.cpp: that of llama-cpp-py-sync, or a file `libllama.so` of the same interface, whose defaults must be those that are known."""
    library = get_lib() if path is None else ffi.dlopen(str(path.resolve()))
    defaults = library.llama_model_quantize_default_params()
    if (defaults.ftype, defaults.quantize_output_tensor, defaults.pure) != (library.LLAMA_FTYPE_MOSTLY_Q8_0, True, False):
        raise SystemExit(f"{path} has another interface than the llama.cpp of llama-cpp-py-sync: give a build of about the same time")
    return library


def mix(original: Path, importance: Importance, name: str, path: Path, *, library: Any, n_threads: int) -> dict[str, object]:
    """The types of one mix's tensors, its bytes, and the seconds that quantizing took; its file is written to `path`."""
    ffi, began = get_ffi(), time.perf_counter()
    settings = ffi.new("llama_model_quantize_params *", library.llama_model_quantize_default_params())
    settings.ftype, settings.nthread = getattr(library, f"LLAMA_FTYPE_MOSTLY_{name}"), n_threads
    settings.imatrix = importance.entries
    status = library.llama_model_quantize(bytes(original), bytes(path), settings)
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
    parser.add_argument("--keep", type=Path, help="folder in which the files stay, for league.py --mixes")
    parser.add_argument("--mixes", default=MIXES, help="default: %(default)s")
    parser.add_argument("--library", type=Path, help="libllama.so of another build, where that of llama-cpp-py-sync needs a newer glibc")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()

    library = opened(get_ffi(), args.library)
    importance, found = Importance(args.imatrix, get_ffi()), {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.mixes.split(","):
            found[name] = mix(args.original, importance, name, folder / f"{name}.gguf", library=library, n_threads=args.threads)
            print(f"{name:8} {found[name]['size_bytes']:12,} bytes {found[name]['seconds']:6.1f} s", flush=True)
            args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            if not args.keep:
                (folder / f"{name}.gguf").unlink()


if __name__ == "__main__":
    main()
