"""The compute buffer that Bitwright counts beside the one that llama.cpp reports, on random models of every shape that its formula was read off.

    python benchmarks/compute_buffer.py

Two layers and 384 tokens of vocabulary each, a context of 512 tokens: some seventy loads of the engine, two minutes.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from bitwright.compress import dimensions, open_source
from bitwright.engines import Recipe, Serving
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.log import engine_memory
from bitwright.engines.llama_cpp.memory_model import memory_use
from tests.compress import tiny_models as tiny

EXACT = 0.003  # the log has hundredths of a MiB
SERVING = Serving(512)
TOLD = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
TIED = {"tie_word_embeddings": True, "query_pre_attn_scalar": 64, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}
Shape = tuple[str, dict[str, Any]]


def shapes() -> list[Shape]:
    """Kinds and sizes: embedding, heads of queries and keys, their size, feed-forward."""
    dense = [(e, q, k, 64, f) for e, q, k, f in product((128, 256), (4, 8, 16), (2, 4, 8), (256, 512, 1024)) if k <= q]
    found = [("llama" if i % 3 else "qwen3", sized(*shape)) for i, shape in enumerate(dense)]
    found += [("gemma3_text" if i % 2 else "gemma2", sized(*shape) | TIED) for i, shape in enumerate(dense[::6])]
    for e, f, shared in product((128, 256), (64, 128, 256), (128, 512, 1024)):
        mixture = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": f, "shared_expert_intermediate_size": shared}
        found.append(("qwen2_moe", sized(e, e // 64, e // 64, 64, f) | mixture))
    return found


def sized(embedding: int, queries: int, keys: int, head: int, feed_forward: int) -> dict[str, Any]:
    """Dimensions of a Llama, as its configuration names them."""
    return {
        "hidden_size": embedding,
        "num_attention_heads": queries,
        "num_key_value_heads": keys,
        "head_dim": head,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 4096,
    }


def error(kind: str, settings: dict[str, Any], folder: Path) -> float:
    """Return the counted bytes over the engine's report, less one."""
    tokenizer = tiny.sentence_pieces(folder, "gemma-spm" if "gemma" in kind else "llama-spm")
    tiny.module(kind, settings, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source, path = open_source(str(folder)), folder / "model.gguf"
    write_gguf(path, Recipe(source, {}), lambda tensor: source.stored(tensor))
    counted = memory_use(dimensions(source), SERVING, weights_bytes=0).compute.size_bytes
    return counted / engine_memory(path, SERVING, fill=0).compute_bytes - 1


def main() -> None:
    """Run the benchmark from the command line."""
    errors = []
    for kind, settings in shapes():
        with tempfile.TemporaryDirectory() as scratch:
            found = error(kind, settings, Path(scratch))
        errors.append(found)
        if abs(found) > EXACT:
            print(f"{found:+.1%}  {kind} " + " ".join(f"{name}={settings[name]}" for name in settings if name in TOLD), flush=True)
    exact = sum(abs(value) <= EXACT for value in errors)
    print(f"{exact} of {len(errors)} shapes to the hundredth of a MiB; the others between {min(errors):+.1%} and {max(errors):+.1%}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
