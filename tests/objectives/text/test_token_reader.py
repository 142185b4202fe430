"""Reading token by token gives the logits of reading at once, whatever the model keeps."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.objectives import TokenReader

SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 2}
#: what it keeps: keys and values, states, states that go wrong, and nothing that it tells
KINDS = {
    "llama": ATTENTION,
    "mamba": {"state_size": 8, "time_step_rank": 4},
    "rwkv": {"attention_hidden_size": 32},
    "recurrent_gemma": {**ATTENTION, "lru_width": 32, "head_dim": 16, "num_hidden_layers": 3, "intermediate_size": 96},
}


@pytest.mark.parametrize("model_type", KINDS)
def test_token_by_token_is_all_at_once(model_type: str) -> None:
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SHAPE, **KINDS[model_type]})).eval()
    ids = torch.arange(3, 23).reshape(2, 10)
    with torch.inference_mode():
        whole = module(ids, use_cache=False).logits
        reader = TokenReader(module)
        first = reader.read(ids[:, :6])
        rest = [reader.read(ids[:, i : i + 1]) for i in range(6, 10)]
    assert torch.allclose(torch.stack([first, *rest], dim=1), whole[:, 5:], atol=1e-4 * whole.abs().max())
