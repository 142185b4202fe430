"""Streamed passes of a model of a 7B's shape: seconds and peak memory of each, beside the rates that bound them.

    python benchmarks/seven_billion.py make FOLDER                        # 32 layers of 4,096: 13.5 GB of random bfloat16 weights, shard by shard
    python benchmarks/seven_billion.py passes FOLDER --out OUT --search-memory 4GB
    python benchmarks/seven_billion.py make FOLDER --layers 8 --width 1024 --feed-forward 2816 --heads 8     # smaller, to try it

A pass reads all weights, a sweep twice, and computes 2 operations a weight and token, a sweep 6: forward, each block again, and back to its inputs.
The bound of a pass is the larger of the time to read so many weights from their files and that of so many operations, at the rates that are measured
here before: by reading for ten seconds, and by products of the text's tokens with a matrix of the model's width. Weights are random: only times and
memory mean something.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

import bitwright as bw
from bitwright.compress import Model, PackedTensors, Room, choice_loader, load, swapping
from bitwright.compress.models.opening import open_skeleton
from bitwright.engines import DEFAULT_ENGINE, engine_named
from bitwright.objectives import QUALITY, Reference, Store, Tokens, collect_importance
from bitwright.predictors import Subject, gradient_products, row_sample, rows_wanted
from bitwright.progress import Silent
from bitwright.spaces import Space, discover

_CLEAR = Path("/proc/self/clear_refs")
ERROR = 0.1  # relative, of prices from sampled rows


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--layers", type=int, default=32)
    making.add_argument("--width", type=int, default=4096)
    making.add_argument("--feed-forward", type=int, default=11008)
    making.add_argument("--heads", type=int, default=32)
    making.add_argument("--vocabulary", type=int, default=32000)
    passing = commands.add_parser("passes")
    passing.add_argument("folder", type=Path)
    passing.add_argument("--out", type=Path, required=True)
    passing.add_argument("--search-memory", default="4GB")
    passing.add_argument("--sequences", default="4,64")
    passing.add_argument("--formats", default="Q8_0,Q4_0")
    passing.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if asked.command == "make":
        heads = {"num_attention_heads": asked.heads, "num_key_value_heads": asked.heads, "vocab_size": asked.vocabulary}
        make(asked.folder, {"num_hidden_layers": asked.layers, "hidden_size": asked.width, "intermediate_size": asked.feed_forward, **heads})
    else:
        passes(asked)


def make(folder: Path, shape: dict[str, int]) -> None:
    """Write a Llama of random weights, a shard for each layer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model("llama", **shape, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    config.architectures, config.dtype = ["LlamaForCausalLM"], torch.bfloat16
    config.save_pretrained(folder)
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    shards: dict[str, dict[str, torch.Size]] = {}
    for name, weight in open_skeleton(config).named_parameters():
        parts = name.split(".")
        shards.setdefault(parts[2] if "layers" in parts else parts[-2], {})[name] = weight.shape
    generator, where = torch.Generator().manual_seed(0), {}
    for i, shapes in enumerate(shards.values()):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        save_file({name: random_weights(size, generator) for name, size in shapes.items()}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(shapes, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    print(f"{sum(path.stat().st_size for path in folder.glob('*.safetensors')) / 1e9:.2f} GB in {len(shards)} shards")


def random_weights(size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Weights of a norm are ones, those of a matrix normal."""
    return torch.ones(size, dtype=torch.bfloat16) if len(size) < 2 else torch.empty(size).normal_(0, 0.02, generator=generator).bfloat16()


class Timed:
    """Seconds, peak memory and bounds of passes, a line for each."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens, self.n_weights, self.read_rate, self.product_rate = n_tokens, 0, 0.0, 0.0
        print(f"{'':26s}{'seconds':>9s}{'peak GB':>9s}{'bound, s':>10s}{'of bound':>10s}")

    @contextmanager
    def line(self, name: str, *, reads: float = 0, operations: float = 0) -> Iterator[None]:
        """Time a block that reads all weights so often, and computes so many operations for each weight and token."""
        with suppress(OSError):
            _CLEAR.write_text("5")  # the peak begins anew; on systems without this file it is that of the process so far
        started = time.perf_counter()
        yield
        seconds, bound = time.perf_counter() - started, 0.0
        if reads:
            bound = max(reads * self.n_weights / self.read_rate, operations * self.n_weights * self.n_tokens / self.product_rate)
        told = f"{bound:10.1f}{bound / seconds:10.0%}" if bound else ""
        print(f"{name:26s}{seconds:9.1f}{peak_bytes() / 1e9:9.2f}{told}", flush=True)

    def measure_rates(self, model: Model) -> None:
        """Measure how many weights a second are read, and how many operations a second products of the text's tokens with a matrix take."""
        self.n_weights = sum(weight.numel() for weight in model.module.parameters())
        started, n_read = time.perf_counter(), 0
        for _, weight in model.weights():
            n_read += weight.numel()
            if time.perf_counter() - started > 10:
                break
        self.read_rate = n_read / (time.perf_counter() - started)
        width = int(model.module.config.hidden_size)
        rows, matrix = torch.randn(self.n_tokens, width, device=model.device), torch.randn(width, width, device=model.device)
        started, n_products = time.perf_counter(), 0
        while time.perf_counter() - started < 3:
            (rows @ matrix).sum().item()
            n_products += 1
        self.product_rate = 2 * n_products * self.n_tokens * width * width / (time.perf_counter() - started)
        told = f"{self.read_rate / 1e6:,.0f} million weights read and {self.product_rate / 1e9:,.1f} billion operations a second"
        print(f"{self.n_weights / 1e9:.2f} billion weights; {told}; {self.n_tokens} tokens", flush=True)


def peak_bytes() -> int:
    """Largest resident memory since the peak was begun anew."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def passes(asked: argparse.Namespace) -> None:
    """Stream the model through every pass of a search."""
    n_sequences, length = map(int, asked.sequences.split(","))
    timed = Timed(n_sequences * length)
    room = Room(asked.out, bw.parse_budget(asked.search_memory).size_bytes(0), stream=True, sequence_length=length)
    engine = engine_named(DEFAULT_ENGINE)
    asked.out.mkdir(parents=True, exist_ok=True)
    with timed.line("opening and checking"):
        model = load(str(asked.folder), asked.device, view=engine.view, room=room)
    for sentence in model.notes:
        print(sentence)
    timed.measure_rates(model)
    ids = np.random.default_rng(0).integers(3, int(model.module.config.vocab_size), (n_sequences, length))
    tokens, store = Tokens(ids, "random tokens"), Store(asked.out / "run.sqlite")
    with timed.line("importance matrix", reads=1, operations=2):
        importance = collect_importance(model, tokens, progress=Silent())
    levels = PackedTensors(asked.out / "levels", model.source, engine.codec(engine.codecs[0], {}), importance)
    space = space_of(model, asked.formats.split(","))
    tensors = [tensor for unit in space.units for tensor in unit.tensors]
    sample = row_sample(model, levels, tokens, tensors, n_rows=partial(rows_wanted, error=ERROR), seed=0)
    with timed.line("rows in every format"):
        for tensor in tensors:
            for form in asked.formats.split(","):
                sample.levels.packed(sample.packed(tensor), engine.target.format(form))
    with timed.line(f"sweep, {len(asked.formats.split(','))} formats", reads=2, operations=6):
        gradient_products(Subject(model, levels, space, tokens, 0, store, Silent(), sample))
    with timed.line("original's predictions", reads=1, operations=2):
        reference = Reference(model, tokens, scratch=asked.out, progress=Silent())
    evaluate(model, levels, space, reference, asked.formats.split(","), timed)


def evaluate(model: Model, levels: PackedTensors, space: Space, reference: Reference, formats: Sequence[str], timed: Timed) -> None:
    """Evaluate the uniform candidate of each format together, after their tensors were quantized whole."""
    choices = [space.uniform(form) for form in space.formats if form.name in formats]
    with timed.line("quantizing candidates"):
        for choice in choices:
            for unit, f in zip(space.units, choice, strict=True):
                for tensor in unit.tensors:
                    levels.packed(tensor, space.formats[f])
    with swapping(model) as swapper:
        load_choice = choice_loader(swapper, model, levels, space)
        for n in sorted({1, len(choices)}):
            with timed.line(f"{n} candidate{'s' * (n > 1)}", reads=1, operations=2 * n):
                reference.measure_each(model, QUALITY, [partial(load_choice, choice) for choice in choices[:n]])


def space_of(model: Model, formats: Sequence[str]) -> Space:
    """The space of these formats, but for the embedding and the output head, which stay as they are."""
    units = tuple(unit for unit in discover(model.tensors) if unit.layer >= 0)
    n_weights = sum(tensor.n_weights for tensor in model.tensors)
    return engine_named(DEFAULT_ENGINE).target.space(units, menu=tuple(formats), fixed_bytes=0, n_weights=n_weights)


if __name__ == "__main__":
    main()
