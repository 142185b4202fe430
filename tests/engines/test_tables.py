"""Tables of integers in a model: read, counted, and written as they are."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bitwright.compress import LINEAR_VIEW, open_source
from bitwright.engines import ENGINES
from bitwright.errors import ModelError
from bitwright.testing.engine_contract import built, check_of
from tests.engines.compressed_tensors.test_loading import saved
from tests.sentences import sentence

pytestmark = pytest.mark.slow

_TABLE = "model.layers.0.mlp.gate.tid2eid"
_SETTINGS = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "mlp_layer_types": ["hash_moe", "moe"],
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "q_lora_rank": 16,
    "o_groups": 2,
    "o_lora_rank": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "hc_mult": 2,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 8,
    "num_nextn_predict_layers": 0,
}


def routed_by_table(words: Path, folder: Path, *, largest: int) -> tuple[str, str]:
    """Write a DeepSeek-V4 whose first layer looks its experts up, of random numbers up to `largest`; its name, and that of the table on disk."""
    model = saved("deepseek_v4", words, folder, **_SETTINGS)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("tid2eid"))
    generator = torch.Generator().manual_seed(0)
    weights[name] = torch.randint(largest + 1, weights[name].shape, generator=generator)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return model, name


@pytest.mark.parametrize("target", ["transformers", "native"])
def test_a_table_of_integers_is_carried_as_it_is(target: str, llama_96: Path, tmp_path: Path) -> None:
    model, name = routed_by_table(llama_96, tmp_path / "given", largest=3)
    made = built(ENGINES[target], model, tmp_path, seed=0)
    assert made.engine.container(model).size_bytes(made.path) == made.size_bytes
    tables = [tensor for tensor in made.source.tensors if tensor.stored == "I64"]
    assert [tensor.name for tensor in tables] == [_TABLE]
    with safe_open(made.path / "model.safetensors", "pt") as found, safe_open(tmp_path / "given" / "model.safetensors", "pt") as given:
        (written,) = [found.get_tensor(key) for key in found.keys() if key.endswith("tid2eid")]  # noqa: SIM118
        assert torch.equal(written, given.get_tensor(name))
    assert written.dtype == torch.int64
    assert check_of(made, made.plan).broken == ()


def test_integers_that_float32_lacks_are_refused(llama_96: Path, tmp_path: Path) -> None:
    model, _ = routed_by_table(llama_96, tmp_path / "given", largest=1 << 40)
    with pytest.raises(ModelError) as caught:
        open_source(model, LINEAR_VIEW)
    sentence(caught.value, "16,777,216", "I64")
