"""Measure what steps that move channels give type by type: matrices of some blocks in one GGUF type, with and without the steps, on held-out text.

python benchmarks/moved_types.py MODEL --calibration valid.txt --held-out test.txt --out RUN --formats Q4_0,IQ4_NL --blocks 0,9,18,27

Lanes are steps in their order, separated by `+`; `scale:up-down` scales at places of that kind alone. With `--codec obs` there is error feedback.
A matrix whose rows a type does not divide stays as it is. Divergence from the original in nats per token; ratios and differences are to the
lane without steps, paired by sequence. Rows are printed as they are done and kept in RUN/moved_types.jsonl, so that a run that was stopped goes on
where it was. `moved_channels.py` measures whole plans.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gguf_codecs import against, in_layers
from numpy.typing import NDArray
from second_moments import moments_of
from two_texts import add_texts, two_texts

from bitwright.compress import (
    Codec,
    Floats,
    GgmlCodec,
    GgmlErrorFeedback,
    Model,
    PackedTensors,
    Reparametrization,
    ReparametrizedSource,
    applied,
    junctions,
    load,
)
from bitwright.objectives import KullbackLeibler, Reference, standard_error
from bitwright.pipeline.finishing.channel_fitting import Fitting, MovedMoments
from bitwright.pipeline.finishing.moved_channels import MOVING_STEPS, MovingStep
from bitwright.pipeline.finishing.moved_weights import RestoredTensors, RestoredWeights
from bitwright.progress import Silent, ignore
from bitwright.spaces import GGML_BY_NAME, BlockFormat, Format

BASE = "none"


@dataclass(frozen=True, eq=False)
class Bench:
    """Model, second moments of the inputs of its matrices, their importance, and the original's predictions on held-out text."""

    model: Model
    codec: str
    moments: Mapping[str, Floats]
    importance: Mapping[str, Floats]
    reference: Reference
    out: Path

    def made(self, moments: Mapping[str, Floats]) -> Codec:
        """Return the codec with these moments."""
        return GgmlErrorFeedback(moments) if self.codec == "obs" else GgmlCodec()

    def by_sequence(self, form: BlockFormat, names: list[str], lane: str) -> tuple[NDArray[np.float64], int]:
        """Return the divergence of each held-out sequence `(n_sequences,)`, and the number of places where channels were moved."""
        formats: dict[str, Format] = dict.fromkeys(names, form)
        whole, steps = self.model.source, list[Reparametrization]()
        for step in (_step(words) for words in lane.split("+") if lane != BASE):
            source = ReparametrizedSource(whole, steps)
            fitting = Fitting(source, formats, self.made, source.squares(self.importance), MovedMoments(source, self.moments))
            steps.append(step.fitted(fitting, step.places(junctions(whole), values=True), ignore))
        source = ReparametrizedSource(whole, steps)
        shutil.rmtree(self.out / "levels", ignore_errors=True)
        packed = PackedTensors(self.out / "levels", source, self.made(MovedMoments(source, self.moments)), source.squares(self.importance))
        restored = RestoredTensors(packed, source)
        weights = {tensor.name: RestoredWeights(restored, tensor, form) for tensor in self.model.tensors if tensor.name in names}
        with applied(self.model, weights):
            return self.reference.measure(self.model, (KullbackLeibler(),))[:, 0], sum(len(step.maps) for step in steps)


def _step(words: str) -> MovingStep:
    """Return a step by its name, at places of one kind alone where that follows a colon."""
    name, _, kind = words.partition(":")
    step = MOVING_STEPS[name]
    return replace(step, kinds=(kind,)) if kind else step


def printed(form: str, lane: str, row: Mapping[str, object], base: NDArray[np.float64]) -> None:
    """Print a row of the table."""
    nats = np.array(row["nats"])
    compared = "" if lane == BASE else against(nats, base)
    print(f"| {form} | {lane} | {row['moved']} | {nats.mean():.4f} ± {standard_error(nats):.4f} | {compared} |", flush=True)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a GGUF file of weights that were never quantized")
    add_texts(parser)
    parser.add_argument("--formats", default="Q4_0,IQ4_NL", help="of the block types, separated by commas (default: %(default)s)")
    parser.add_argument(
        "--lanes", default=f"{BASE},scale,order-channels,rotate", help="separated by commas, the first one none (default: %(default)s)"
    )
    parser.add_argument("--codec", choices=("ggml", "obs"), default="ggml", help="default: %(default)s")
    parser.add_argument("--sequences", type=int, default=16, help="for calibration (default: %(default)s)")
    parser.add_argument("--held-out-sequences", type=int, default=8, help="to measure on (default: %(default)s)")
    parser.add_argument("--blocks", default="", help="whose matrices are quantized, separated by commas (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures, and of packed weights while it runs")
    args = parser.parse_args()
    model = load(args.model)
    calibration, held_out = two_texts(model, args, n_calibration=args.sequences, n_held_out=args.held_out_sequences)
    args.out.mkdir(parents=True, exist_ok=True)
    forms = [form for form in (GGML_BY_NAME[name] for name in args.formats.split(",")) if isinstance(form, BlockFormat)]
    names, shape = in_layers(model, args.blocks, forms), {tensor.name: tensor.shape for tensor in model.tensors}
    moments = moments_of(model, names, calibration)
    importance = {name: (of[:, range(of.shape[1]), range(of.shape[1])] / calibration.ids.size).astype(np.float32) for name, of in moments.items()}
    bench = Bench(model, args.codec, moments, importance, Reference(model, held_out, scratch=args.out, progress=Silent()), args.out)
    record = args.out / "moved_types.jsonl"
    rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.is_file() else []
    done = {row["key"]: row for row in rows}
    print("| type | steps | places moved | nats per token | of none (difference) |\n|---|---|---|---|---|")
    for form in forms:
        for lane in args.lanes.split(","):
            key = f"{args.codec} {form.name} {lane} {args.blocks} {args.sequences} {args.held_out_sequences}"
            if key not in done:
                nats, moved = bench.by_sequence(form, [name for name in names if form.fits(shape[name])], lane)
                done[key] = {"key": key, "nats": nats.tolist(), "moved": moved}
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[key]) + "\n")
            base = np.array(done[key.replace(lane, BASE, 1)]["nats"])
            printed(form.name, lane, done[key], base)


if __name__ == "__main__":
    main()
