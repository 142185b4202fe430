"""Streamed passes of a model of a 7B's shape: seconds and peak memory of each, beside the rates that bound them.

    python benchmarks/seven_billion.py make FOLDER               # Qwen2.5-7B's shape: 15.2 GB of random bfloat16 weights, shard by shard
    python benchmarks/seven_billion.py importance FOLDER --out OUT
    python benchmarks/seven_billion.py sweep FOLDER --out OUT
    python benchmarks/seven_billion.py quantize FOLDER --out OUT   # whole, in the formats of the candidates; goes on where it was stopped
    python benchmarks/seven_billion.py candidates FOLDER --out OUT
    python benchmarks/seven_billion.py build FOLDER --out OUT
    python benchmarks/seven_billion.py make FOLDER --layers 2    # smaller, to try it

Each stage is a process of its own, which opens the model again, and needs the stages before it. The bound of a pass is the larger of two times: to
read the weights' bytes as often as the pass does, at the rate of reading these files (dropped from the page cache before), and to compute its
operations, at the rate of products of the text's tokens with the matrices of a block. Both rates are measured before the pass and after it, with as
many threads, and their means are taken. Operations of a weight and token: 2 for a forward pass; in a sweep 2 forward, 2 for each block once more and
2 back to its inputs (the head runs once: 4). The embedding is looked up: none. What prices cost on top is not in the bound. Weights are random: only
times and memory mean something.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerFast

import bitwright as bw
from bitwright.compress import Model, PackedTensors, Room, choice_loader, load, swapping
from bitwright.compress.models.opening import open_skeleton
from bitwright.engines import DEFAULT_ENGINE, Recipe, engine_named
from bitwright.objectives import QUALITY, Reference, Store, Tokens, collect_importance
from bitwright.predictors import Subject, gradient_products, row_sample, rows_wanted
from bitwright.progress import Silent
from bitwright.spaces import Choice, Space, discover

_CLEAR = Path("/proc/self/clear_refs")
ERROR = 0.1  # relative, of prices from sampled rows
FORMATS = "Q8_0", "Q4_0"
CHUNK_BYTES = 1 << 24


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    for name, default in (("layers", 28), ("width", 3584), ("feed-forward", 18944), ("heads", 28), ("kv-heads", 4), ("vocabulary", 152064)):
        making.add_argument(f"--{name}", type=int, default=default)
    for stage in STAGES:
        staged = commands.add_parser(stage)
        staged.add_argument("folder", type=Path)
        staged.add_argument("--out", type=Path, required=True)
        staged.add_argument("--search-memory", default="5GB")
        staged.add_argument("--sequences", default="4,64")
        staged.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if asked.command == "make":
        shape = {"num_hidden_layers": asked.layers, "hidden_size": asked.width, "intermediate_size": asked.feed_forward}
        make(asked.folder, {**shape, "num_attention_heads": asked.heads, "num_key_value_heads": asked.kv_heads, "vocab_size": asked.vocabulary})
    else:
        STAGES[asked.command](opened(asked))


def make(folder: Path, shape: dict[str, int]) -> None:
    """Write a Qwen2 of random weights, a shard for each layer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model("qwen2", **shape, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    config.architectures, config.dtype = ["Qwen2ForCausalLM"], torch.bfloat16
    config.save_pretrained(folder)
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]
    inner = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[("h", "e")]))
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
    """Return ones for a vector, such as a norm, and normal weights for a matrix."""
    return torch.ones(size, dtype=torch.bfloat16) if len(size) < 2 else torch.empty(size).normal_(0, 0.02, generator=generator).bfloat16()


@dataclass(frozen=True)
class Rates:
    """Bytes of weights read and operations computed in a second."""

    read: float
    operations: float


@dataclass(frozen=True, eq=False)
class Run:
    """Opened model, the text, and the folder of what stages leave for each other."""

    model: Model
    tokens: Tokens
    folder: Path
    out: Path

    @property
    def importance(self) -> dict[str, np.ndarray]:
        """Importance matrix of an earlier stage."""
        with np.load(self.out / "importance.npz") as found:
            return dict(found)

    @property
    def levels(self) -> PackedTensors:
        """Packed tensors of all stages."""
        engine = engine_named(DEFAULT_ENGINE)
        return PackedTensors(self.out / "levels", self.model.source, engine.codec(engine.codecs[0], {}), self.importance)

    @property
    def space(self) -> Space:
        """Space of both formats for every matrix, the embedding and the output head among them."""
        units, n_weights = discover(self.model.tensors), sum(tensor.n_weights for tensor in self.model.tensors)
        return engine_named(DEFAULT_ENGINE).target.space(units, menu=FORMATS, fixed_bytes=0, n_weights=n_weights)

    @property
    def candidates(self) -> list[Choice]:
        """Four choices: each format alone, and the two halves of the blocks in one and the other."""
        high, low = (self.space.uniform(form) for name in FORMATS for form in self.space.formats if form.name == name)
        is_early = np.array([unit.layer < self.model.module.config.num_hidden_layers / 2 for unit in self.space.units])
        return [high, low, np.where(is_early, high, low), np.where(is_early, low, high)]

    def rates(self) -> Rates:
        """Measure both rates: read for five seconds from files that are not in the page cache, then compute with a block's matrices for five."""
        return Rates(read_rate(self.folder), operations_rate(self.model, self.tokens.n_tokens))

    @contextmanager
    def line(self, name: str, *, reads: int = 0, of_blocks: int = 0, of_head: int = 0) -> Iterator[None]:
        """Time a block, and print it beside the bound of so many reads of all weights, and operations of a weight and token."""
        before = self.rates() if reads else None
        forget_pages(self.folder)
        with suppress(OSError):
            _CLEAR.write_text("5")  # the peak begins anew; on systems without this file it is that of the process so far
        started, worked = time.perf_counter(), time.process_time()
        yield
        seconds, worked, peak = time.perf_counter() - started, time.process_time() - worked, peak_bytes()
        print(f"{name:24s}{seconds:8.1f} s  {worked:8.1f} s of CPU  peak {peak / 1e9:.2f} GB", end="", flush=True)
        if before is not None:
            self._tell_bound(seconds, (before, self.rates()), (reads, of_blocks, of_head))
        print(flush=True)

    def _tell_bound(self, seconds: float, rates: tuple[Rates, Rates], asked: tuple[int, int, int]) -> None:
        n_head, n_embedding = (int(inner.weight.numel()) for inner in (self.model.module.lm_head, self.model.module.get_input_embeddings()))
        n_weights = sum(weight.numel() for weight in self.model.module.parameters())
        operations = (asked[1] * (n_weights - n_head - n_embedding) + asked[2] * n_head) * self.tokens.n_tokens
        read, computed = (float(np.mean([getattr(each, name) for each in rates])) for name in ("read", "operations"))
        times = asked[0] * 2 * n_weights / read, operations / computed
        told = f"{operations / 1e12:.2f} trillion operations at {computed / 1e9:.1f} billion/s, {2e-9 * asked[0] * n_weights:.1f} GB"
        of_bound = max(times) / seconds
        print(
            f"  {1e3 * seconds / self.tokens.n_tokens:.0f} ms/token  bound {max(times):.1f} s: {of_bound:.0%}  ({told} at {read / 1e6:.0f} MB/s)",
            end="",
        )


def opened(asked: argparse.Namespace) -> Run:
    """Open the model for a stage."""
    n_sequences, length = map(int, asked.sequences.split(","))
    asked.out.mkdir(parents=True, exist_ok=True)
    room = Room(asked.out, bw.parse_budget(asked.search_memory).size_bytes(0), stream=True, sequence_length=length)
    started = time.perf_counter()
    model = load(str(asked.folder), asked.device, view=engine_named(DEFAULT_ENGINE).view, room=room)
    print(*model.notes, sep="\n")
    print(f"opened in {time.perf_counter() - started:.1f} s, peak {peak_bytes() / 1e9:.2f} GB; {torch.get_num_threads()} threads", flush=True)
    ids = np.random.default_rng(0).integers(3, int(model.module.config.vocab_size), (n_sequences, length))
    return Run(model, Tokens(ids, "random tokens"), asked.folder, asked.out)


def importance(run: Run) -> None:
    """Collect the importance matrix."""
    with run.line("importance matrix", reads=1, of_blocks=2, of_head=2):
        found = collect_importance(run.model, run.tokens, progress=Silent())
    np.savez(run.out / "importance.npz", **found)


def sweep(run: Run) -> None:
    """Price both formats by a sample of rows and one gradient sweep."""
    tensors = [tensor for unit in run.space.units for tensor in unit.tensors]
    sample = row_sample(run.model, run.levels, run.tokens, tensors, n_rows=partial(rows_wanted, error=ERROR), seed=0)
    with run.line("rows in both formats"):
        for tensor in tensors:
            for form in FORMATS:
                sample.levels.packed(sample.packed(tensor), engine_named(DEFAULT_ENGINE).target.format(form))
    store = Store(run.out / f"run-{time.time_ns()}.sqlite")  # nothing of an earlier sweep
    with run.line("gradient sweep", reads=2, of_blocks=6, of_head=4):
        gradient_products(Subject(run.model, run.levels, run.space, run.tokens, 0, store, Silent(), sample))


def quantize(run: Run) -> None:
    """Quantize every matrix whole in both formats."""
    levels = run.levels
    with run.line("quantizing whole"):
        for unit in run.space.units:
            for tensor in unit.tensors:
                for form in FORMATS:
                    levels.packed(tensor, engine_named(DEFAULT_ENGINE).target.format(form))


def candidates(run: Run) -> None:
    """Evaluate the four candidates in one pass."""
    with run.line("original's predictions", reads=1, of_blocks=2, of_head=2):
        reference = Reference(run.model, run.tokens, scratch=run.out, progress=Silent())
    choices, levels = run.candidates, run.levels
    with swapping(run.model) as swapper:
        load_choice = choice_loader(swapper, run.model, levels, run.space)
        with run.line("four candidates", reads=1, of_blocks=8, of_head=8):
            values = reference.measure_each(run.model, QUALITY, [partial(load_choice, choice) for choice in choices])
    print("divergence of each:", ", ".join(f"{of_choice[:, 0].mean():.5f}" for of_choice in values))


def build(run: Run) -> None:
    """Write the third candidate as a file, which reads it back."""
    engine, names, levels = engine_named(DEFAULT_ENGINE), run.space.names(run.candidates[2]), run.levels
    container = engine.container(str(run.folder))
    promised = run.space.total_bytes(run.candidates[2]) + container.fixed_bytes(run.model.source, names, run.out)
    with run.line("writing the file"):
        path = container.write(
            run.out / "model.gguf", Recipe(run.model.source, names), lambda t: levels.packed(t, engine.target.format(names[t.name]))
        )
    print(f"{promised:,} bytes promised, {container.size_bytes(path):,} found")


def read_rate(folder: Path) -> float:
    """Return the bytes read in a second from the shards of a model, for five seconds, while they are not in the page cache."""
    forget_pages(folder)
    started, n_read, chunk = time.perf_counter(), 0, bytearray(CHUNK_BYTES)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while (n := file.readinto(chunk)) and time.perf_counter() - started < 5:
                n_read += n
    return n_read / (time.perf_counter() - started)


def operations_rate(model: Model, n_tokens: int) -> float:
    """Return the operations computed in a second by products of `n_tokens` hidden states with each matrix of a block, for five seconds."""
    block = next(inner for inner in model.module.modules() if isinstance(inner, nn.ModuleList))[0]
    shapes = [inner.weight.shape for inner in block.modules() if isinstance(inner, nn.Linear)]
    matrices = [(torch.randn(n_tokens, n_columns), torch.randn(n_rows, n_columns)) for n_rows, n_columns in shapes]
    started, n_operations = time.perf_counter(), 0
    while time.perf_counter() - started < 5:
        for rows, matrix in matrices:
            nn.functional.linear(rows.to(model.device), matrix.to(model.device)).sum().item()
            n_operations += 2 * n_tokens * matrix.numel()
    return n_operations / (time.perf_counter() - started)


def forget_pages(folder: Path) -> None:
    """Ask the system to drop a model's files from the page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file, suppress(OSError):
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_bytes() -> int:
    """Largest resident memory since the peak was begun anew."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


STAGES: dict[str, Callable[[Run], None]] = {
    "importance": importance,
    "sweep": sweep,
    "quantize": quantize,
    "candidates": candidates,
    "build": build,
}

if __name__ == "__main__":
    main()
