"""Sizes that no laptop holds: spaces of huge mixtures of experts from their configuration alone, and a plan built shard by shard.

    python benchmarks/large.py spaces            # Qwen3-MoE's 48 x 128 experts and DeepSeek-V3's 58 x 256, built and solved
    python benchmarks/large.py make FOLDER       # 2.4 GB of random weights, six shards
    python benchmarks/large.py build FOLDER --out OUT [--target transformers]    # that model packed, in another process for a peak memory of its own

The sensitivities of `spaces` are synthetic: a power of two of the bits times a lognormal factor for each unit. They say how long solving takes, not
what a model needs.
"""

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

from bitwright.compress import PackedTensors, open_source, weights_of
from bitwright.compress.models.architectures import architecture_of, engine_shape, lay_out
from bitwright.compress.models.cut_source import cut_tensors
from bitwright.compress.models.opening import open_skeleton
from bitwright.engines import NATIVE, Recipe, as_held, engine_named, target_named
from bitwright.engines.by_name import container_of
from bitwright.engines.compressed_tensors.reload import unpack_layer_by_layer
from bitwright.engines.compressed_tensors.target import TRANSFORMERS
from bitwright.engines.native.target import NATIVE_MATRICES
from bitwright.search import solve, solve_lagrangian
from bitwright.spaces import Space, Target, Tensor, Unit, discover

QWEN = {
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "intermediate_size": 6144,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "norm_topk_prob": True,
}
SHARDS, WIDTH, EXPERT_WIDTH, N_EXPERTS, N_LAYERS = 6, 1024, 1408, 32, 8
N_TOKENS = 4096
MENUS = {NATIVE.name: ("INT4_G128", "INT2_G64", "INT3_G128"), TRANSFORMERS.name: ("W4_G128", "W2_G64", "W3_G128")}


def peak_bytes() -> int:
    """Largest memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def from_config(config: PreTrainedConfig) -> list[Tensor]:
    """The engine's tensors of a known architecture, experts apart."""
    module = open_skeleton(config)
    weights = weights_of(module)
    whole = [Tensor(n, engine_shape(p, weights[p[0].parameter]), "BF16") for n, p in lay_out(module, architecture_of(config).name).items()]
    return [*cut_tensors(whole, NATIVE.cut)]


def synthetic(space: Space) -> np.ndarray:
    """Nats/token that fall fourfold with every bit, times a factor for each unit."""
    rng = np.random.default_rng(0)
    bits = np.array([form.bits_per_weight for form in space.formats])
    factor = rng.lognormal(0.0, 1.5, (len(space.units), 1)) * np.array([[unit.n_weights] for unit in space.units])
    return 1e-9 * factor * 4.0**-bits * rng.lognormal(0.0, 0.2, space.offered.shape)


def spaces(name: str, config: PreTrainedConfig, target: Target) -> None:
    """Print the number of units and formats of a model's space, and the time it takes to solve it."""
    started = time.perf_counter()
    tensors = from_config(config)
    units: tuple[Unit, ...] = discover(tensors)
    space = target.space(units, menu=(), fixed_bytes=0, n_weights=sum(tensor.n_weights for tensor in tensors))
    built = time.perf_counter() - started
    print(f"{name}: {len(tensors):,} tensors, {len(space.units):,} units x {len(space.formats)} formats, {space.n_weights / 1e9:.1f} G weights")
    print(f"  space built in {built:.1f} s, peak memory {peak_bytes() / 1e9:.2f} GB")
    table = synthetic(space)
    for solver in (solve_lagrangian, solve):
        started = time.perf_counter()
        found = solver(space, table, int(3.0 * space.n_weights))
        print(
            f"  {solver.__name__}: {found.size_bits / space.n_weights:.6f} bpw, loss {found.loss:.6g}, gap {found.gap:.3g} nats/token "
            f"(synthetic sensitivities), {time.perf_counter() - started:.1f} s"
        )


def make(folder: Path) -> None:
    """A Qwen3-MoE of random bfloat16 weights, a shard at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": N_LAYERS, "num_experts": N_EXPERTS, "moe_intermediate_size": EXPERT_WIDTH}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": N_TOKENS, "norm_topk_prob": True}
    config = AutoConfig.for_model("qwen3_moe", **shape, **heads, intermediate_size=2048, num_experts_per_tok=2, tie_word_embeddings=False)
    config.architectures, config.dtype = ["Qwen3MoeForCausalLM"], torch.bfloat16
    config.save_pretrained(folder)
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    names = {}
    for name, weight in open_skeleton(config).named_parameters():
        stem, n = name.removesuffix("gate_up_proj").removesuffix("down_proj"), weight.shape
        if weight.dim() < 3:
            names[name] = tuple(n)
        elif name.endswith("gate_up_proj"):
            names |= {f"{stem}{e}.{role}_proj.weight": (n[1] // 2, n[2]) for e in range(n[0]) for role in ("gate", "up")}
        else:
            names |= {f"{stem}{e}.down_proj.weight": tuple(n[1:]) for e in range(n[0])}
    generator, where, listed = torch.Generator().manual_seed(0), {}, list(names)
    for i in range(SHARDS):
        chosen = listed[i * len(listed) // SHARDS : (i + 1) * len(listed) // SHARDS]
        file = f"model-{i + 1:05}-of-{SHARDS:05}.safetensors"
        save_file(
            {name: torch.empty(names[name]).normal_(0, 0.02, generator=generator).bfloat16() for name in chosen}, folder / file, {"format": "pt"}
        )
        where |= dict.fromkeys(chosen, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))


def build(folder: Path, target: Target, out: Path) -> None:
    """Three formats in turn, every tensor read from its shard, packed, written and read back."""
    shards = [path.stat().st_size for path in folder.glob("*.safetensors")]
    print(
        f"{sum(shards) / 1e9:.2f} GB in {len(shards)} shards, the largest of {max(shards) / 1e6:.0f} MB; libraries take {peak_bytes() / 1e6:.0f} MB"
    )
    started = time.perf_counter()
    source = as_held(open_source(str(folder), engine_named(target.name).view), target)
    print(f"opened and fingerprinted in {time.perf_counter() - started:.0f} s, peak memory {peak_bytes() / 1e6:.0f} MB")
    started, levels = time.perf_counter(), PackedTensors(out.parent, source, engine_named(target.name).codec("rtn", {}), {})
    units = discover(source.tensors)
    fixed = container_of(target, str(folder)).fixed_bytes(source, [tensor.name for unit in units for tensor in unit.tensors], out.parent)
    space = target.space(units, menu=MENUS[target.name], fixed_bytes=fixed, n_weights=1)
    choice = np.array([np.flatnonzero(row)[i % row.sum()] for i, row in enumerate(space.offered)])
    formats = space.names(choice)
    container = container_of(target, str(folder))
    if target is TRANSFORMERS:  # as where the unpacked model does not fit into memory
        container = replace(engine_named(target.name).container(str(folder)), reload=unpack_layer_by_layer)
    container.write(out, Recipe(source, formats), lambda tensor: levels.encode(tensor, target.format(formats[tensor.name])))
    peak, seconds = peak_bytes(), time.perf_counter() - started
    print(f"{len(source.tensors):,} tensors written for {target.name}, read back and compared in {seconds:.0f} s")
    print(f"{space.total_bytes(choice):,} bytes promised, {container.size_bytes(out):,} found")
    print(f"peak memory {peak / 1e6:.0f} MB: {peak / max(shards):.2f} x the largest shard (at most 3)")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("spaces")
    commands.add_parser("make").add_argument("folder", type=Path)
    building = commands.add_parser("build")
    building.add_argument("folder", type=Path)
    building.add_argument("--target", choices=MENUS, default=NATIVE.name)
    building.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.folder)
    elif asked.command == "build":
        build(asked.folder, target_named(asked.target), asked.out)
    else:
        spaces("Qwen3-MoE, 48 x 128 experts", AutoConfig.for_model("qwen3_moe", **QWEN), NATIVE)
        spaces("DeepSeek-V3, 58 x 256 experts x 3 matrices", AutoConfig.for_model("deepseek_v3"), NATIVE_MATRICES)


if __name__ == "__main__":
    main()
