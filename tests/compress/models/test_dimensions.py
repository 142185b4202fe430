from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType

from bitwright.compress import KeyValue, Source, dimensions, open_source
from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny
from tests.sentences import sentence


def source(architecture: str, **said: Any) -> Source:
    """A source of nothing but metadata."""
    made = type("Said", (Source,), {"read": None, "stored": None})()
    made.name, made.architecture, made.tensors = "said", architecture, ()
    defaults = {"block_count": 6, "embedding_length": 64, "attention.head_count": 8, "context_length": 128, "feed_forward_length": 96}
    kind = GGUFValueType.UINT32
    made.metadata = tuple(KeyValue(f"{architecture}.{key}", value, kind, kind) for key, value in (defaults | said).items() if value is not None)
    return made


def test_a_file_and_its_folder_have_the_same_dimensions(llama_256: Path, gguf_256: Path) -> None:
    found = dimensions(open_source(str(gguf_256)))
    assert found == dimensions(open_source(str(llama_256)))
    assert (found.n_layers, found.embedding_width, found.feed_forward_width, found.n_used) == (2, 256, 512, 1)
    assert found.n_vocabulary == tiny.N_TOKENS
    assert found.key_widths == found.value_widths == (256, 256)
    assert not any(found.windowed)


def test_grouped_queries_cache_fewer_heads(llama_gqa: Path) -> None:
    found = dimensions(open_source(str(llama_gqa)))
    assert found.key_widths == (2 * found.key_head,) * found.n_layers


def test_experts_are_counted_as_a_token_uses_them(tiny_mixtral: Path) -> None:
    assert dimensions(open_source(str(tiny_mixtral))).n_used == 2


def test_what_is_not_said_is_the_engines_default() -> None:
    found = dimensions(source("llama"))
    assert found.key_widths == (64,) * 6  # as many heads of keys as of queries, of the width's share each
    assert dimensions(source("llama", **{"attention.head_count_kv": [1, 2, 3, 4, 5, 6], "attention.key_length": 16})).key_widths == tuple(
        16 * n for n in range(1, 7)
    )
    assert dimensions(source("qwen3moe", expert_count=8, expert_used_count=3, expert_feed_forward_length=24)).feed_forward_width == 24


@pytest.mark.parametrize(
    ("architecture", "said", "windowed"),
    [
        ("llama", {"attention.sliding_window": 16}, (False,) * 6),  # the engine passes over it
        ("gemma2", {}, (True, False) * 3),
        ("gemma3", {"attention.sliding_window": 16}, (True,) * 5 + (False,)),
        ("gemma3", {}, (False,) * 6),
        ("gemma3", {"attention.sliding_window": 16, "attention.sliding_window_pattern": [True, False, False] * 2}, (True, False, False) * 2),
    ],
)
def test_windows_are_those_that_the_engine_computes(architecture: str, said: dict[str, Any], windowed: tuple[bool, ...]) -> None:
    assert dimensions(source(architecture, **said)).windowed == windowed


def test_a_model_that_does_not_say_is_refused() -> None:
    with pytest.raises(ModelError) as refused:
        dimensions(source("llama", context_length=None))
    sentence(refused.value, "llama.context_length")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", "two"),
        ("block_count", 2**31),
        ("embedding_length", 6.5),
        ("attention.head_count", 0),
        ("attention.head_count", [1, 2]),
        ("attention.head_count_kv", ["a"] * 6),
        ("context_length", [1]),
        ("feed_forward_length", -1),
    ],
)
def test_a_figure_of_another_type_is_named(key: str, value: object) -> None:
    with pytest.raises(ModelError) as refused:
        dimensions(source("llama", **{key: value}))
    sentence(refused.value, key)
