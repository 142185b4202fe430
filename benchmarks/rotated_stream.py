"""Make a folder of the same model with its residual stream rotated (R1 of QuaRot and SpinQuant), to be quantized and compared like any other.

    python benchmarks/rotated_stream.py MODEL ROTATED --held-out test.txt
    for model in MODEL ROTATED; do
      python benchmarks/gguf_codecs.py $model --calibration valid.txt --held-out test.txt --out RUN-$model --formats Q4_0,IQ4_NL
    done

Norms are folded into the matrices after them, the head is untied from the embedding, every matrix that reads the stream is multiplied by R from the
right, and every one that writes it by Rᵀ from the left (Ashkboos et al., "QuaRot", 2404.00456; Liu et al., "SpinQuant", 2405.16406). R is a
Hadamard matrix with random signs; of widths that are no power of two, its product with a random rotation of what is left. Weights are written in
float32, for models of the shapes of Llama, Qwen2 and Qwen3. The largest difference of the log-probabilities on a held-out text is printed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

_N_TOKENS = 128


def rotation(width: int, seed: int) -> torch.Tensor:
    """Return a rotation `(width, width)` in float64: a Hadamard matrix times a random rotation of the odd factor of the width, with random signs."""
    rng = np.random.default_rng(seed)
    rest = width // (power := width & -width)
    turned = np.linalg.qr(rng.normal(size=(rest, rest)))[0]
    whole = np.kron(hadamard(power) / np.sqrt(power), turned) * rng.choice([-1.0, 1.0], width)[:, None]
    return torch.from_numpy(whole)


@torch.no_grad()
def rotate(model: PreTrainedModel, by: torch.Tensor) -> None:
    """Rotate the residual stream of a model in place, its norms folded and its head untied."""
    body, head = model.get_decoder(), nn.Linear(by.shape[0], model.config.vocab_size, bias=False)
    head.weight.data = model.get_output_embeddings().weight.detach().clone()
    model.set_output_embeddings(head)
    model.config.tie_word_embeddings = False
    _read([head], body.norm, by)
    _set(body.embed_tokens.weight, body.embed_tokens.weight.double() @ by)
    for block in body.layers:
        attention, feed_forward = block.self_attn, block.mlp
        _read([attention.q_proj, attention.k_proj, attention.v_proj], block.input_layernorm, by)
        _read([feed_forward.gate_proj, feed_forward.up_proj], block.post_attention_layernorm, by)
        for writer in (attention.o_proj, feed_forward.down_proj):
            _set(writer.weight, by.T @ writer.weight.double())


def _read(readers: list[nn.Linear], norm: nn.Module, by: torch.Tensor) -> None:
    """Fold a norm into the matrices that read it, and rotate their inputs."""
    for reader in readers:
        _set(reader.weight, (reader.weight.double() * norm.weight.double()) @ by)
    norm.weight.fill_(1.0)


def _set(parameter: nn.Parameter, value: torch.Tensor) -> None:
    parameter.copy_(value.to(parameter.dtype))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of transformers")
    parser.add_argument("rotated", type=Path, help="folder to write")
    parser.add_argument("--held-out", type=Path, required=True, help="text to compare both models on")
    parser.add_argument("--seed", type=int, default=0, help="of the rotation (default: %(default)s)")
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = tokenizer(args.held_out.read_text(encoding="utf-8")[: 16 * _N_TOKENS], return_tensors="pt").input_ids[:, :_N_TOKENS]
    with torch.no_grad():
        before = model(ids).logits.log_softmax(-1)
        rotate(model, rotation(model.config.hidden_size, args.seed))
        after = model(ids).logits.log_softmax(-1)
    largest, nats = (after - before).abs().max().item(), (before.exp() * (before - after)).sum(-1).mean().item()
    print(f"log-probabilities differ by {largest:.1e} at most, of {before.abs().max().item():.0f}; divergence {nats:.1e} nats/token")
    model.save_pretrained(args.rotated)
    tokenizer.save_pretrained(args.rotated)


if __name__ == "__main__":
    main()
