"""The formulas against the engine's own log, on models of every kind of cache."""

from pathlib import Path

import pytest
import torch

from bitwright.compress import Bytes, dimensions, open_source
from bitwright.engines import LLAMA_CPP, NATIVE, MemoryUse, Recipe, Serving, as_held, memory_model_named
from bitwright.engines.llama_cpp.gguf_writer import header_bytes, write_gguf
from bitwright.engines.llama_cpp.log import EngineMemory, engine_memory
from bitwright.engines.llama_cpp.memory_model import memory_use, server_arguments
from bitwright.errors import ModelError, UserError
from bitwright.spaces import CACHE_FORMATS, Tensor
from tests.compress import tiny_models as tiny
from tests.model_fixtures import saved
from tests.sentences import sentence

pytestmark = pytest.mark.slow

ROUNDED = 0.0051 * 2**20  # the log has hundredths of a MiB

WINDOWS = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
TIED = {"tie_word_embeddings": True, "query_pre_attn_scalar": 64}
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64}  # heads that together are several times as wide as the embedding
SHAPES = {
    "llama": ("llama", {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8, "num_key_value_heads": 2}),
    "mixture": ("mixtral", {"hidden_size": 128, "intermediate_size": 512, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "turned heads": ("llama", {"hidden_size": 256, "intermediate_size": 768, "head_dim": 128}),
    "windows, turned heads": ("gemma3_text", {"hidden_size": 128, "intermediate_size": 512, **WINDOWS, "head_dim": 64, "query_pre_attn_scalar": 64}),
    "as many keys as queries": ("llama", {**WIDE, "num_attention_heads": 8, "num_key_value_heads": 8}),
    "half as many": ("llama", {**WIDE, "num_attention_heads": 8, "num_key_value_heads": 4}),
    "a quarter": ("llama", {**WIDE, "num_attention_heads": 16, "num_key_value_heads": 4}),
    "few keys": ("qwen3", {**WIDE, "num_attention_heads": 16, "num_key_value_heads": 2}),
    "shared expert": ("qwen2_moe", {"hidden_size": 128, **tiny.EXPERTS, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 1024}),
    "wide windows": ("gemma3_text", {**WINDOWS, **WIDE, **TIED, "num_attention_heads": 8, "num_key_value_heads": 8}),
    "windows": ("gemma3_text", {"hidden_size": 128, "intermediate_size": 512, **WINDOWS}),
}


@pytest.fixture(scope="module", params=SHAPES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of long context as a GGUF file."""
    model_type, settings = SHAPES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny.sentence_pieces(folder, "gemma-spm" if "gemma" in model_type else "llama-spm")
    tiny.module(model_type, settings | {"max_position_embeddings": 4096}, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "model.gguf"
    write_gguf(path, Recipe(open_source(str(folder)), {}), _nothing)
    return path


def _nothing(tensor: Tensor) -> Bytes:
    raise AssertionError(f"{tensor} was to be copied")


def counted(path: Path, serving: Serving) -> MemoryUse:
    source = open_source(str(path))
    return memory_use(dimensions(source), serving, weights_bytes=path.stat().st_size - header_bytes(source, path.parent))


def require_same(use: MemoryUse, engine: EngineMemory, n_caches: int) -> None:
    assert use.weights.size_bytes == pytest.approx(engine.weights_bytes, abs=ROUNDED)
    assert sum(line.size_bytes for line in use.cache) == pytest.approx(engine.cache_bytes, abs=n_caches * ROUNDED)
    assert use.outputs.size_bytes == pytest.approx(engine.outputs_bytes, abs=ROUNDED)
    assert use.compute.size_bytes == pytest.approx(engine.compute_bytes, abs=2 * ROUNDED)
    assert use.buffers_bytes == pytest.approx(engine.buffers_bytes, abs=(n_caches + 4) * ROUNDED)


SERVINGS = [Serving(512), Serving(2048, 3), Serving(100, 2), Serving(4096, 1, "Q8_0", "Q4_0"), Serving(700, 1, "BF16", "F16")]


@pytest.mark.parametrize("serving", SERVINGS)
def test_every_buffer_is_the_one_that_the_engine_reports(file: Path, serving: Serving) -> None:
    if dimensions(open_source(str(file))).key_head % 32 and serving.keys == "Q8_0":
        pytest.skip("no block divides its heads")
    require_same(counted(file, serving), engine_memory(file, serving, fill=0), n_caches=2)


def test_the_total_is_what_the_process_takes(gguf_256: Path) -> None:
    serving = Serving(128)
    engine, use = engine_memory(gguf_256, serving, fill=64), counted(gguf_256, serving)
    assert use.total_bytes == pytest.approx(engine.resident_bytes, rel=0.15)  # five hundredths on models larger than the engine itself


def test_latent_attention_caches_no_values(tmp_path: Path) -> None:
    model_type, settings, _ = tiny.FAMILIES["deepseek-v3"]
    folder = saved(tmp_path / "deepseek", model_type, {**settings, "max_position_embeddings": 4096})
    source = as_held(open_source(str(folder)), LLAMA_CPP)
    write_gguf(tmp_path / "model.gguf", Recipe(source, {}), _nothing)
    for serving in (Serving(512), Serving(2048, 3)):
        use = memory_use(dimensions(source), serving, weights_bytes=0)
        found = engine_memory(tmp_path / "model.gguf", serving, fill=0)
        assert sum(line.size_bytes for line in use.cache) == pytest.approx(found.cache_bytes, abs=2 * ROUNDED)


def test_lines_add_up(gguf_256: Path) -> None:
    use = counted(gguf_256, Serving(100, 2))
    assert sum(line.size_bytes for line in use.lines) == use.total_bytes == use.buffers_bytes + use.engine.size_bytes
    assert use.besides_weights_bytes + use.weights.size_bytes == use.total_bytes
    twice = counted(gguf_256, Serving(100, 4))
    assert sum(line.size_bytes for line in twice.cache) == 2 * sum(line.size_bytes for line in use.cache)


def test_a_serving_says_how_the_engine_is_started() -> None:
    assert server_arguments(Serving(512, 2)) == "-c 1024 -np 2 --no-mmap --cache-ram 0 --ctx-checkpoints 0"
    assert "-ctk q8_0 -ctv q4_0" in server_arguments(Serving(512, 1, "Q8_0", "Q4_0"))


def test_what_cannot_be_served_is_refused(gguf_256: Path) -> None:
    for wrong, values in (({"context": 0}, ("context", 0)), ({"context": 1, "parallel": -1}, (-1,)), ({"context": 1, "keys": "Q6_K"}, ("Q6_K",))):
        with pytest.raises(UserError) as refused:
            Serving(**wrong)
        sentence(refused.value, *values)
    with pytest.raises(UserError) as refused:
        counted(gguf_256, Serving(100_000))
    sentence(refused.value, "100,000")
    with pytest.raises(UserError) as refused:
        memory_model_named(NATIVE.name)
    sentence(refused.value, "native", "--budget")
    memory_model_named(LLAMA_CPP.name)


def test_a_cache_type_must_divide_a_head(llama_gqa: Path) -> None:
    source = open_source(str(llama_gqa))
    assert dimensions(source).key_head % 32
    for name in CACHE_FORMATS[3:]:
        with pytest.raises(UserError) as refused:
            memory_use(dimensions(source), Serving(64, 1, name), weights_bytes=1)
        sentence(refused.value, name, dimensions(source).key_head)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError) as refused:
        engine_memory(tmp_path / "none.gguf", Serving(64), fill=0)
    sentence(refused.value, "none.gguf")
