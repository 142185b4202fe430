"""Compare roundings at the same bits: uniform integers for the matrices of the blocks, measured on held-out text.

python benchmarks/codecs.py MODEL --calibration valid.txt --held-out test.txt --out RUN
RIVAL/bin/python benchmarks/rivals/llmcompressor_gptq.py MODEL RUN/calibration.npy --bits 3 --group 64 --order none --out RUN/none    # its own
RIVAL/bin/python benchmarks/rivals/llmcompressor_gptq.py MODEL RUN/calibration.npy --bits 3 --group 64 --order static --out RUN/static
python benchmarks/codecs.py MODEL --calibration valid.txt --held-out test.txt --out RUN --rival RUN/none RUN/static

Lanes, all with the same format for every matrix of the blocks (embedding and head stay as they are):
    rtn             round to nearest between the least and the largest weight of a group
    clip            the same with searched ends, weighed by the importance matrix
    hqq             half-quadratic
    gptq            GPTQ with the moments of the original model
    gptq + clip     the same with searched ends
    ... (sequential) GPTQ block after block, each seeing the error of those before it
    ..., as stored  columns from the first to the last, instead of those of the largest activations first
    ..., by current the levels of a group placed by the weights as they are when its first column comes, instead of by the original weights
    llm-compressor  its GPTQ on the same tokens, its weights read from the folder that the script wrote, after which the lane is named

Divergence from the original in nats per token; differences are paired by sequence against round to nearest.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from second_moments import moments_of

from bitwright.compress import Floats, Model, PackedTensors, Rounding, Weights, applied, integer_codec, load, packed_codec, planned_weights
from bitwright.compress.codecs.rounding.clipping import SearchedClipping, clipped
from bitwright.compress.codecs.rounding.gptq import Gptq, as_stored
from bitwright.compress.codecs.rounding.half_quadratic import HalfQuadratic
from bitwright.compress.codecs.rounding.rounding import RoundToNearest
from bitwright.objectives import KullbackLeibler, Reference, Shape, Tokens, collect_importance, read_documents, split_texts, standard_error
from bitwright.pipeline.finishing.blockwise_gptq import sequential_gptq
from bitwright.progress import Silent
from bitwright.spaces import INTEGER_FORMATS, PACKED_FORMATS, Format, PackedFormat, discover

RIVAL = "llm-compressor"
FORMATS = {form.name: form for form in (*INTEGER_FORMATS, *PACKED_FORMATS)}
Lane = Callable[[], Weights]


class Bench:
    """A model, its texts, and the formats that all lanes share."""

    def __init__(self, model: Model, calibration: Tokens, held_out: Tokens, *, form: Format, out: Path) -> None:
        self.model, self.calibration, self.out = model, calibration, out
        self.codec = packed_codec if isinstance(form, PackedFormat) else integer_codec
        self.formats = {
            tensor.name: form for unit in discover(model.tensors) if unit.layer >= 0 for tensor in unit.tensors if tensor.name in model.pieces
        }
        self.reference = Reference(model, held_out, scratch=out, progress=Silent())
        self.importance = collect_importance(model, calibration, progress=Silent())

    def by_sequence(self, weights: Weights) -> NDArray[np.float64]:
        """The divergence of each held-out sequence `(n_sequences,)` with those weights."""
        with applied(self.model, weights):
            return self.reference.measure(self.model, (KullbackLeibler(),))[:, 0]

    def levels(self, name: str, rounding: Rounding) -> PackedTensors:
        """Tensors packed by a rounding, in a folder of that name."""
        return PackedTensors(self.out / name, self.model.source, self.codec(rounding), self.importance if name != "none" else {})

    def at_once(self, name: str, rounding: Rounding) -> Weights:
        """Weights of all tensors rounded independently."""
        levels = self.levels(name, rounding)
        for tensor in self.model.tensors:
            if tensor.name in self.formats:
                levels.packed(tensor, self.formats[tensor.name])
        return planned_weights(self.model, levels, formats=self.formats)

    def in_order(self, name: str, rounding: Callable[[Mapping[str, Floats]], Rounding]) -> Weights:
        """Weights rounded block by block, each with the inputs that the rounded blocks before it produce."""

        def with_moments(moments: Mapping[str, Floats]) -> PackedTensors:
            return self.levels(name, rounding(moments))

        kept = self.levels(name, RoundToNearest())
        if not all((kept.folder / f"{tensor}.{form.name}").exists() for tensor, form in self.formats.items()):
            with sequential_gptq(self.model, self.formats, self.calibration, levels=with_moments, progress=Silent()):
                pass
        return planned_weights(self.model, kept, formats=self.formats)

    def rival(self, folder: Path) -> Weights:
        """Weights that another program left under the names of transformers, one parameter for each tensor."""
        stored = load_file(folder / "weights.safetensors")

        def of(name: str) -> Floats:
            (piece,) = self.model.pieces[name]
            rows: Floats = stored[piece.parameter][piece.order()].astype(np.float32)
            return rows

        return {name: lambda name=name: of(name) for name in self.formats}  # type: ignore[misc]


def lanes(bench: Bench, rivals: list[Path]) -> dict[str, Lane]:
    """Functions that make the weights of each codec, by name."""
    moments = moments_of(bench.model, bench.formats, bench.calibration)
    found: dict[str, Lane] = {
        "rtn": lambda: bench.at_once("rtn", RoundToNearest()),
        "clip": lambda: bench.at_once("clip", SearchedClipping()),
        "hqq": lambda: bench.at_once("hqq", HalfQuadratic()),
        "gptq": lambda: bench.at_once("gptq", Gptq(moments)),
        "gptq, as stored": lambda: bench.at_once("stored", Gptq(moments, order=as_stored)),
        "gptq, by current": lambda: bench.at_once("current", Gptq(moments, when="as they come")),
        "gptq + clip": lambda: bench.at_once("clip-gptq", Gptq(moments, place=clipped)),
        "gptq + clip, by current": lambda: bench.at_once("clip-current", Gptq(moments, place=clipped, when="as they come")),
        "gptq (sequential)": lambda: bench.in_order("order", Gptq),
        "gptq (sequential), as stored": lambda: bench.in_order("order-stored", lambda m: Gptq(m, order=as_stored)),
        "gptq + clip (sequential)": lambda: bench.in_order("order-clip", lambda m: Gptq(m, place=clipped)),
        "gptq + clip (sequential), by current": lambda: bench.in_order("order-clip-current", lambda m: Gptq(m, place=clipped, when="as they come")),
    }
    return found | {f"{RIVAL}, {folder.name}": lambda folder=folder: bench.rival(folder) for folder in rivals}  # type: ignore[misc]


def show(nats: Mapping[str, NDArray[np.float64]], seconds: Mapping[str, float]) -> None:
    """Print the divergence and the seconds of each codec, and the paired difference from rtn."""
    base = nats["rtn"]
    print(f"| {'codec':33} | {'nats per token':>17} | {'against rtn':>18} | seconds |\n|---|---|---|---|")
    for name, values in nats.items():
        difference = values - base
        against = "" if name == "rtn" else f"{difference.mean():+.4f} ± {standard_error(difference):.4f}"
        print(f"| {name:33} | {values.mean():.4f} ± {standard_error(values):.4f} | {against:>18} | {seconds[name]:7.1f} |")
    for rival in (name for name in nats if name.startswith(RIVAL)):
        for name in nats:
            difference = nats[name] - nats[rival]
            print(f"{name} − {rival}: {difference.mean():+.4f} ± {standard_error(difference):.4f}")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file of weights that were never quantized")
    parser.add_argument("--calibration", type=Path, required=True, help="text to calibrate on")
    parser.add_argument("--held-out", type=Path, required=True, help="text to measure on")
    parser.add_argument(
        "--format", default="INT3_G64", choices=FORMATS, metavar="FORMAT", help="of every matrix of the blocks (default: %(default)s)"
    )
    parser.add_argument("--sequences", type=int, default=32, help="for calibration, and as many held out (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for tokens and packed weights")
    parser.add_argument("--rival", type=Path, nargs="*", default=[], help="folders that rivals/llmcompressor_gptq.py wrote")
    args = parser.parse_args()
    model, n = load(args.model), args.sequences
    calibration = split_texts(read_documents(args.calibration), model.tokenizer, Shape(n, 0, args.length), name=args.calibration.name).calibration
    held_out = split_texts(read_documents(args.held_out), model.tokenizer, Shape(0, n, args.length), name=args.held_out.name).held_out
    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "calibration.npy", calibration.ids)
    bench = Bench(model, calibration, held_out, form=FORMATS[args.format], out=args.out)
    nats, seconds = {}, {}
    for name, lane in lanes(bench, args.rival).items():
        started = time.perf_counter()
        weights = lane()
        seconds[name] = time.perf_counter() - started
        nats[name] = bench.by_sequence(weights)
    show(nats, seconds)
    (args.out / "codecs.json").write_text(json.dumps({name: values.tolist() for name, values in nats.items()}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
