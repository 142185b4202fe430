"""Weights that transformers changes while it loads a packed checkpoint are named, without any weight in memory."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress.models.modules.initialised_layers import initialised_layers, overwritten

_SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16}


@pytest.mark.parametrize(
    ("family", "settings", "changed"), [("youtu", _LATENT, ("model.embed_tokens.weight",)), ("llama", {}, ()), ("mamba", {}, ())]
)
def test_a_weight_that_initialisation_writes_to_is_named(family: str, settings: dict[str, int], changed: tuple[str, ...]) -> None:
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **_SHAPE, **settings))
    assert overwritten(module) == changed
    assert not any("_is_hf_initialized" in vars(weight) for weight in module.parameters())


def test_layers_that_are_initialised_without_a_look_are_named() -> None:
    config = AutoConfig.for_model("falcon", vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    names = [name for name, _ in module.named_parameters() if "self_attention.dense" in name or "lm_head" in name]
    assert initialised_layers(module, names) == {name for name in names if "dense" in name}
