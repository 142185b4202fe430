"""Declaration of one family: a model type of transformers with its settings, small, and with the features that set it apart switched on."""

from dataclasses import dataclass, field
from typing import Any

N_TOKENS, N_PIECES = 384, 360  # of the model, and of its tokenizer

#: kind of tokenizer → its tokens for beginning, end and padding
ENDS = {
    "bpe": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "bpe-bos": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "spm": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "gemma": {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
}
#: settings that most configurations call alike
SHAPE: dict[str, Any] = {
    "vocab_size": N_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Family:
    """A family; `settings` are given over `shape`, and for a wrapper `text` and `vision` are those of the models in it.

    `stored` are entries of `config.json` that published models have, llama.cpp's converter reads and transformers does not write.
    `pieces` is the kind of its tokenizer: `bpe`, a byte-level one that cuts as GPT-2 does (`bpe-bos` begins texts with a token), or SentencePiece of
    Llama's (`spm`) or Gemma's (`gemma`) kind. `deviation` is that of the logits if nothing scaled them afterwards: more where a family divides them,
    less where it multiplies embeddings.
    """

    name: str
    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] | None = None
    vision: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)
    pieces: str = "bpe"
    deviation: float = 2.0
    shape: dict[str, Any] = field(default_factory=lambda: SHAPE)

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments of the family's configuration."""
        if self.text is None:
            return {**self.shape, **ENDS[self.pieces], **self.settings}
        ends = ENDS[self.pieces]
        return {**ends, **self.settings, "text_config": {**self.shape, **ends, **self.text}, "vision_config": self.vision}
