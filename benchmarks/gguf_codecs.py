"""Compare error feedback with libggml at the same bytes: every block type, uniform over the matrices of the blocks, on held-out text.

python benchmarks/gguf_codecs.py MODEL --calibration valid.txt --held-out test.txt --out RUN
python benchmarks/gguf_codecs.py MODEL ... --formats Q4_0,Q4_K --lanes "ggml,obs,obs as stored,obs unshrunk"
python benchmarks/gguf_codecs.py MODEL ... --blocks 0,9,18,27      # the matrices of these blocks alone, where a model is too large for all

Lanes:
    ggml            libggml's quantizers with the importance matrix, as llama-quantize runs them
    obs             --codec obs: the same blocks with error feedback
    obs as stored   blocks from the first to the last, instead of those of the largest activations first
    obs alike       all tokens of the calibration text alike, instead of each by what its errors are added to
    obs unshrunk    products of inputs taken at their word: GPTQ's damping alone
    obs sequential  as --ship-codec obs: block after block of the model, each with the inputs that the quantized blocks before it give

A matrix whose rows a type does not divide stays as it is. Divergence from the original in nats per token; ratios and differences are to `ggml`,
paired by sequence; `codec_seconds.py` has the times. Rows are printed as they are done and kept in RUN/gguf_codecs.jsonl, so that a run
that was stopped goes on where it was.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from second_moments import moments_of
from two_texts import add_texts, two_texts

from bitwright.compress import Codec, Floats, GgmlCodec, GgmlErrorFeedback, Model, PackedTensors, applied, load, planned_weights
from bitwright.compress.codecs.rounding.gptq import as_stored
from bitwright.objectives import KullbackLeibler, Reference, Tokens, standard_error
from bitwright.objectives.text.forward_pass import run_forward
from bitwright.objectives.text.importance import InputSquares
from bitwright.pipeline.finishing.blockwise_gptq import sequential_gptq
from bitwright.pipeline.settings import DTYPES
from bitwright.progress import Silent, ignore
from bitwright.spaces import GGML_BY_NAME, GGML_FORMATS, BlockFormat, Format, discover

BASE, ALIKE = "ggml", "obs alike"
Moments = Mapping[str, Floats]
LANES: dict[str, Callable[[Moments], Codec]] = {
    BASE: lambda _: GgmlCodec(),
    "obs": GgmlErrorFeedback,
    ALIKE: GgmlErrorFeedback,
    "obs as stored": lambda moments: GgmlErrorFeedback(moments, order=as_stored),
    "obs unshrunk": lambda moments: GgmlErrorFeedback(moments, shrinkage=0.0),
    "obs sequential": GgmlErrorFeedback,
}


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, its calibration text and importance, and the reference on held-out text."""

    model: Model
    calibration: Tokens
    importance: Mapping[str, Floats]
    reference: Reference
    names: tuple[str, ...]
    out: Path

    def by_sequence(self, form: BlockFormat, lane: str) -> NDArray[np.float64]:
        """Return the divergence of each held-out sequence `(n_sequences,)`."""
        formats: dict[str, Format] = dict.fromkeys(self.matrices(form), form)
        folder = self.out / "levels"
        shutil.rmtree(folder, ignore_errors=True)

        def levels(moments: Moments) -> PackedTensors:
            return PackedTensors(folder, self.model.source, LANES[lane](moments), self.importance)

        if lane == "obs sequential":
            with sequential_gptq(self.model, formats, self.calibration, levels=levels, progress=Silent()):
                pass
        else:
            packed = levels(self._alike if lane == ALIKE else self._moments)
            for tensor in self.model.tensors:
                if tensor.name in formats:
                    packed.packed(tensor, form)
        with applied(self.model, planned_weights(self.model, levels({}), formats=formats)):
            return self.reference.measure(self.model, (KullbackLeibler(),))[:, 0]

    @cached_property
    def _moments(self) -> Moments:
        return moments_of(self.model, self.names, self.calibration)

    @cached_property
    def _alike(self) -> Moments:
        return moments_of(self.model, self.names, self.calibration, weigh=False)

    def matrices(self, form: BlockFormat) -> list[str]:
        """Return which of the named matrices `form` fits."""
        shapes = {tensor.name: tensor.shape for tensor in self.model.tensors}
        return [name for name in self.names if form.fits(shapes[name])]


def in_layers(model: Model, blocks: str, forms: Sequence[BlockFormat]) -> tuple[str, ...]:
    """Names of the matrices of the named blocks, of all if none is, that at least one of `forms` fits."""
    named = {int(block) for block in blocks.split(",") if block}
    units = [unit for unit in discover(model.tensors) if unit.layer >= 0 and (unit.layer in named or not named)]
    tensors = (tensor for unit in units for tensor in unit.tensors if tensor.name in model.pieces)
    names = tuple(tensor.name for tensor in tensors if any(form.fits(tensor.shape) for form in forms))
    if named - {unit.layer for unit in units} or not names:
        raise SystemExit(
            f"--blocks must name blocks of the model with matrices that a type fits; of {model.source.name} were asked {blocks or 'all'}"
        )
    return names


def printed(form: str, lane: str, nats: NDArray[np.float64], *, base: NDArray[np.float64]) -> None:
    """Print a row of the table: divergence, and its ratio to and difference from the base."""
    print(f"| {form} | {lane} | {nats.mean():.4f} ± {standard_error(nats):.4f} | {'' if lane == BASE else against(nats, base)} |", flush=True)


def against(nats: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """Return the ratio of the mean divergence to the base's, and the mean paired difference with its standard error."""
    return f"{nats.mean() / base.mean():.3f} ({(nats - base).mean():+.4f} ± {standard_error(nats - base):.4f})"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file of weights that were never quantized")
    add_texts(parser)
    parser.add_argument("--formats", default="", help="of the block types, separated by commas (default: all that fit a matrix)")
    parser.add_argument("--lanes", default=f"{BASE},obs", help="separated by commas, the first one the base (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=48, help="for calibration (default: %(default)s)")
    parser.add_argument("--held-out-sequences", type=int, default=16, help="to measure on (default: %(default)s)")
    parser.add_argument("--blocks", default="", help="whose matrices are quantized, separated by commas (default: all)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the model's arithmetic (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures, and of packed weights while it runs")
    args = parser.parse_args()
    model = load(args.model, dtype=DTYPES[args.dtype])
    calibration, held_out = two_texts(model, args, n_calibration=args.sequences, n_held_out=args.held_out_sequences)
    args.out.mkdir(parents=True, exist_ok=True)
    named = [GGML_BY_NAME[name] for name in args.formats.split(",") if name] or GGML_FORMATS
    blocks = [form for form in named if isinstance(form, BlockFormat) and form.block > 1]
    names = in_layers(model, args.blocks, blocks)
    squares = InputSquares(model)
    run_forward(model, calibration, ignore, tap=squares)
    importance = {name: mean for name, mean in squares.means().items() if name in names}
    bench = Bench(
        model,
        calibration,
        importance,
        Reference(model, held_out, scratch=args.out, progress=Silent()),
        names,
        args.out,
    )
    done, record = dict[str, list[float]](), args.out / "gguf_codecs.jsonl"
    if record.is_file():
        done = {row["key"]: row["nats"] for row in map(json.loads, record.read_text(encoding="utf-8").splitlines())}
    ratios: dict[str, list[float]] = {}
    print("| type | codec | nats per token | of ggml's (difference) |\n|---|---|---|---|")
    for form in filter(bench.matrices, blocks):
        base: NDArray[np.float64] | None = None
        for lane in args.lanes.split(","):
            key = f"{form.name} {lane} {args.blocks} {args.sequences} {args.held_out_sequences} {args.dtype}"
            if key not in done:
                done[key] = bench.by_sequence(form, lane).tolist()
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "nats": done[key]}) + "\n")
            nats = np.array(done[key])
            base = nats if base is None else base
            printed(form.name, lane, nats, base=base)
            ratios.setdefault(lane, []).append(float(nats.mean() / base.mean()))
    for lane, of_lane in ratios.items():
        if lane != BASE:
            print(f"{lane}: geometric mean {np.exp(np.mean(np.log(of_lane))):.3f} of ggml's over {len(of_lane)} types, worst {max(of_lane):.3f}")


if __name__ == "__main__":
    main()
