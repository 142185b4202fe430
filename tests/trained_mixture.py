"""A mixture of experts that is trained in seconds: two layers of eight experts, one of them for each token, of which two are copies of each other.

The text is drawn from four languages, each a chain in which every token has a few successors of its own, so there is something for experts to
specialise in. One expert is trained as one and becomes two: its router's row is copied too, and the two rows are pulled apart a little, so that
each gets a share of the tokens (as in sparse upcycling; Komatsuzaki et al., ICLR 2023).

    python -m tests.trained_mixture FOLDER
"""

import sys
from pathlib import Path

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from tests.compress import tiny_models as tiny

ORIGINAL, COPY = 0, 7  # in every layer
_LANGUAGES, _SUCCESSORS, _FIRST, _WORDS = 4, 3, 260, 96
_STEPS, _BATCH, _LENGTH = 160, 24, 48


def trained_mixture(folder: Path, seed: int = 0) -> Path:
    """Train it and save it to `folder`, with a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    module = _made(7, seed)
    module.config.output_router_logits = True  # so that the loss spreads the tokens over the experts
    successors = torch.randint(_WORDS, (_LANGUAGES, _WORDS, _SUCCESSORS), generator=generator)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=_STEPS)
    for _ in range(_STEPS):
        ids = _drawn(successors, generator)
        module(ids, labels=ids).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    _split(module, _made(8, seed), generator).eval().save_pretrained(folder)
    tiny.sentence_pieces(folder, "llama-spm").save_pretrained(folder)
    return folder


def _made(n_experts: int, seed: int) -> MixtralForCausalLM:
    config = MixtralConfig(
        vocab_size=tiny.N_TOKENS, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        num_local_experts=n_experts, num_experts_per_tok=1, max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=1,
        eos_token_id=2, router_aux_loss_coef=0.02,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MixtralForCausalLM(config)


def _drawn(successors: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch of ids: each row is in one language, and begins with its name."""
    language = torch.randint(_LANGUAGES, (_BATCH,), generator=generator)
    ids = torch.empty((_BATCH, _LENGTH), dtype=torch.int64)
    ids[:, 0] = torch.randint(_WORDS, (_BATCH,), generator=generator)
    for t in range(1, _LENGTH):
        which = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), _BATCH, replacement=True, generator=generator)
        ids[:, t] = successors[language, ids[:, t - 1], which]
    ids += _FIRST
    ids[:, 0] = 3 + language
    return ids


@torch.no_grad()
def _split(module: MixtralForCausalLM, larger: MixtralForCausalLM, generator: torch.Generator) -> MixtralForCausalLM:
    """The `larger` model with the weights of the module, whose one expert is two there."""
    weights = module.state_dict()
    for name, weight in weights.items():
        if ".experts." in name:
            weights[name] = torch.cat([weight, weight[ORIGINAL : ORIGINAL + 1]])
        if name.endswith(".gate.weight"):
            row = weight[ORIGINAL : ORIGINAL + 1]
            apart = 0.1 * row.norm() / row.numel() ** 0.5 * torch.randn(row.shape, generator=generator)
            weights[name] = torch.cat([row + apart, weight[ORIGINAL + 1 :], row - apart])
    larger.load_state_dict(weights)
    return larger


if __name__ == "__main__":
    trained_mixture(Path(sys.argv[1]))
