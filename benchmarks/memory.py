"""The memory that Bitwright counts for a run, beside what llama.cpp's log says and what a fresh process of it takes.

    python benchmarks/memory.py                          # SmolLM2 and a random Gemma 3 with sliding windows
    python benchmarks/memory.py path/to/stories260k      # any models, GGUF or Hugging Face folders

Three contexts each. The context is filled up to 1,000 tokens, before the process is weighed.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GemmaTokenizer

from bitwright.compress import GgufSource, open_source
from bitwright.engines import DEFAULT_ENGINE, Recipe, Serving, memory_model_named
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.engines.llama_cpp.log import engine_memory

sys.path.insert(0, str(Path(__file__).parent.parent))
from examples.smollm2 import fetch, find

CONTEXTS = (1, 4, 16)  # parts of the model's context, from the largest
FILLED = 1_000
MB = 2**20


def main(models: list[str]) -> None:
    """Run the benchmark from the command line."""
    worst_buffers, worst_total = 0.0, 0.0
    table = Table(title="Memory, MiB: counted / the engine's log, or its process", box=SIMPLE_HEAD, title_justify="left")
    for heading in ("model", "context", "weights", "cache", "outputs", "compute", "buffers", "process", "error"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        for path in files(models, Path(scratch)):
            for serving in servings(path):
                use = memory_model_named(DEFAULT_ENGINE).anatomy(GgufSource(path)).use(serving, file_bytes=path.stat().st_size)
                found = engine_memory(path, serving, fill=min(FILLED, serving.context - 8))
                pairs = (
                    (use.weights.size_bytes, found.weights_bytes),
                    (sum(line.size_bytes for line in use.cache), found.cache_bytes),
                    (use.outputs.size_bytes, found.outputs_bytes),
                    (use.compute.size_bytes, found.compute_bytes),
                    (use.buffers_bytes, found.buffers_bytes),
                    (use.total_bytes, found.resident_bytes),
                )
                figures = [f"{ours / MB:.2f} / {its / MB:.2f}" for ours, its in pairs]
                errors = [ours / its - 1 for ours, its in pairs[-2:]]
                worst_buffers, worst_total = max(worst_buffers, abs(errors[0])), max(worst_total, abs(errors[1]))
                table.add_row(path.stem[:20], f"{serving.context} × {serving.parallel}", *figures, f"{errors[0]:+.1%}, {errors[1]:+.1%}")
    Console(width=180).print(table)
    print(f"worst error: {worst_buffers:.1%} of the buffers that llama.cpp reports, {worst_total:.1%} of the process")


def servings(path: Path) -> Iterator[Serving]:
    """Yield contexts and numbers of sequences up to the model's longest context."""
    longest = min(8192, memory_model_named(DEFAULT_ENGINE).anatomy(GgufSource(path)).shape.context_length)
    yield from (Serving(longest // part, 1 + (part == 4)) for part in reversed(CONTEXTS))


def files(models: list[str], scratch: Path) -> Iterator[Path]:
    """The models as GGUF files."""
    for name in models:
        yield Path(name) if name.endswith(".gguf") else as_gguf(name, scratch)
    if not models:
        yield find() or fetch()
        yield as_gguf(str(windowed(scratch / "gemma3-random")), scratch)


def as_gguf(folder: str, scratch: Path) -> Path:
    """Write a model folder as a GGUF file without quantizing it."""
    path = scratch / f"{Path(folder).name}.gguf"
    GgufContainer().write(path, Recipe(open_source(folder), {}), lambda tensor: open_source(folder).stored(tensor))
    return path


def windowed(folder: Path) -> Path:
    """Random weights: 12 layers of which two see everything, four query heads for each of keys."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"word{i}" for i in range(16_384))]
    tokenizer = GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    config = Gemma3TextConfig(
        vocab_size=16_388,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        head_dim=128,
        num_attention_heads=8,
        num_key_value_heads=2,
        query_pre_attn_scalar=128,
        sliding_window=512,
        max_position_embeddings=32_768,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
