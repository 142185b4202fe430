"""Memory and time of a native checkpoint, beside the original it was made from.

    python benchmarks/packed_memory.py FOLDER --model MODEL     # a Hugging Face folder, every matrix in INT4_G64
    python benchmarks/packed_memory.py FOLDER --model MODEL --format INT4_2OF4       # in that format, where it fits
    python benchmarks/packed_memory.py FOLDER                   # a random mixture of experts of 0.4 GB, its experts in 2, 3 and 4 bits by turns

Each of both is loaded by plain `from_pretrained` in two processes of its own, and everything is counted from what a process held before. In the
first, what is freed goes back to the system at once: `resident` are bytes (pages of the mapped file included) after a pass of 256 tokens and a look
at every page of the weights, and `peak` is the most on the way. The second is an `ordinary` one, which keeps some of what was freed, and is timed.
`kept` are the bytes of parameters and buffers. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import bitwright.native  # noqa: F401
from bitwright.compress import Bytes, integer_codec, open_source
from bitwright.engines import NATIVE, Recipe, as_held, engine_named
from bitwright.engines.by_name import container_of
from bitwright.engines.native.packed_modules import footprint_bytes
from bitwright.spaces import Tensor, discover

BY_TURNS, OTHERS = ("INT2_G64", "INT3_G64", "INT4_G64"), "INT4_G64"
N_PROMPT, N_DECODED = 256, 16
PAGE_BYTES = 4096
# what is freed goes back at once, so that only what is in use counts; it takes time, so speed is had of another process
GIVEN_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def random_experts(folder: Path) -> None:
    """A Qwen3-MoE of 0.2 G random weights in bfloat16."""
    shape = {"hidden_size": 512, "num_hidden_layers": 8, "num_experts": 16, "moe_intermediate_size": 1024, "num_experts_per_tok": 2}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 4096, "norm_topk_prob": True}
    config = AutoConfig.for_model("qwen3_moe", **shape, **heads, intermediate_size=1024, tie_word_embeddings=False)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)


def build(model: str, out: Path, name: str) -> None:
    """A native checkpoint by round to nearest, without a search: all but experts in the format `name` where it fits, else in `OTHERS`."""
    source, codec = as_held(open_source(model, engine_named(NATIVE.name).view), NATIVE), integer_codec()
    units = discover(source.tensors)
    form = NATIVE.format(name)
    turns = {
        unit.name: BY_TURNS[unit.expert % len(BY_TURNS)] if unit.expert >= 0 else name if NATIVE.offers(unit, form) else OTHERS for unit in units
    }
    formats = {tensor.name: turns[unit.name] for unit in units for tensor in unit.tensors}

    def packed(tensor: Tensor) -> Bytes:
        nothing = np.empty((0, tensor.shape[-1]), dtype=np.float32)
        return codec.encode(source.read(tensor), NATIVE.format(formats[tensor.name]), nothing)

    container_of(NATIVE, model).write(out, Recipe(source, formats), packed)


def status_bytes(key: str) -> int:
    """`VmRSS` or `VmHWM` of this process."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


def warm_up(folder: str, prompt: torch.Tensor, dtype: str) -> None:
    """Load code and kernels: a pass through a random model of the same family, of one narrow block."""
    config = AutoConfig.from_pretrained(folder)
    shape = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64, "vocab_size": 256}
    narrow = {key: value for key, value in shape.items() if key in config.to_dict()}
    small = AutoConfig.for_model(config.model_type, **narrow, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(small, dtype=config.dtype if dtype == "auto" else dtype)(prompt)


@torch.inference_mode()
def measure(folder: str, dtype: str) -> dict[str, float]:
    """Memory and speed of one checkpoint, in this process."""
    prompt = torch.randint(0, 256, (1, N_PROMPT), generator=torch.Generator().manual_seed(0))
    warm_up(folder, prompt, dtype)
    RESET.write_text("5")  # the peak begins anew
    before = status_bytes("VmRSS")
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    for weight in module.parameters():  # a page of the mapped file counts once it was read
        weight.view(-1)[:: PAGE_BYTES // weight.element_size()].sum()
    module(prompt, use_cache=False, logits_to_keep=1)
    resident, peak = status_bytes("VmRSS") - before, status_bytes("VmHWM") - before
    started = time.perf_counter()
    found = module(prompt, use_cache=True, logits_to_keep=1)
    prefill = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(N_DECODED):
        found = module(found.logits[:, -1:].argmax(-1), past_key_values=found.past_key_values, use_cache=True)
    decoding = time.perf_counter() - started
    return {
        "file": sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")),
        "kept": footprint_bytes(module),
        "resident": resident,
        "peak": peak,
        "prefill": N_PROMPT / prefill,
        "decode": N_DECODED / decoding,
    }


def in_a_process(folder: Path, dtype: str, environment: dict[str, str]) -> dict[str, float]:
    """Measure in a process of its own, with these environment variables."""
    command = [sys.executable, __file__, str(folder), "--measure", "--dtype", dtype]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--dtype", default="float32", help="what is computed with; `auto` for the original's own")
    parser.add_argument("--format", default=OTHERS, help="of every matrix that is no expert (default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help="only measure the checkpoint in the folder, here")
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(str(asked.folder), asked.dtype)))
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    original = Path(asked.model) if asked.model else asked.folder / "random"
    if not original.exists():
        random_experts(original)
    native = asked.folder / (asked.format if asked.model else "native")
    if not native.exists():
        build(str(original), native, asked.format)
    print(f"{'MB':>10} {'file':>8} {'kept':>8} {'resident':>9} {'/ file':>7} {'peak':>8} {'ordinary':>9} {'tokens/s read':>14} {'written':>8}")
    for name, folder in (("original", original), (native.name, native)):
        found, ordinary = in_a_process(folder, asked.dtype, GIVEN_BACK), in_a_process(folder, asked.dtype, {})
        sizes = {key: found[key] / 1e6 for key in ("file", "kept", "resident", "peak")}
        print(
            f"{name:>10} {sizes['file']:8.1f} {sizes['kept']:8.1f} {sizes['resident']:9.1f} {sizes['resident'] / sizes['file']:7.2f} "
            f"{sizes['peak']:8.1f} {ordinary['resident'] / 1e6:9.1f} {ordinary['prefill']:14.1f} {ordinary['decode']:8.2f}"
        )


if __name__ == "__main__":
    main()
