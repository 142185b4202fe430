from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress.models.modules.recast_buffers import recast_buffers

_SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("family", "settings", "recast"),
    [
        ("ctrl", {"vocab_size": 64, "n_embd": 32, "dff": 48, "n_layer": 1, "n_head": 2, "n_positions": 64}, ("pos_encoding",)),
        ("gemma3_text", _SHAPE | {"head_dim": 16}, ()),  # with buffers that keep their type
        ("llama", _SHAPE, ()),
    ],
)
def test_buffers_that_change_type_in_a_pass_are_named(family: str, settings: dict[str, Any], recast: tuple[str, ...]) -> None:
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    assert recast_buffers(module) == recast
    assert all(weight.dtype == torch.float32 for weight in module.parameters())
