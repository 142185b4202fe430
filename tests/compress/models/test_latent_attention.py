"""Sources that llama.cpp stores by head."""

from gguf import GGUFValueType

from bitwright.compress import KeyValue, is_latent
from bitwright.spaces import Tensor
from tests.compress.made_sources import MadeSource

WHOLE = Tensor("blk.0.attn_kv_b.weight", (64, 32), "F32")
LENGTH = KeyValue("deepseek2.attention.value_length_mla", 16, GGUFValueType.UINT32, GGUFValueType.UINT32)


def test_only_a_model_with_lengths_by_head_is_split() -> None:
    assert is_latent(MadeSource([WHOLE], [LENGTH]))
    assert not is_latent(MadeSource([WHOLE]))  # MiniCPM3
    assert not is_latent(MadeSource([], [LENGTH]))  # a file that is split already
