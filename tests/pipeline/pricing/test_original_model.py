"""Models that llama.cpp computes, computes otherwise, and refuses; none of which may be found out after a search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import load
from bitwright.engines import HEALTHY_NATS
from bitwright.engines.check_result import steady_context
from bitwright.engines.llama_cpp import parity
from bitwright.engines.llama_cpp.parity import parity_contexts
from bitwright.errors import ModelError, UserError
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.original_model import parity_text, require_parity
from bitwright.pipeline.run import DATABASE
from bitwright.progress import Silent
from tests.model_fixtures import saved
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

_WINDOW = 16
_WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": _WINDOW},
    "mixtral": {"sliding_window": _WINDOW, "num_local_experts": 4},
    "qwen2": {"sliding_window": _WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"sliding_window": _WINDOW, "use_sliding_window": True, "max_window_layers": 0, "head_dim": 32},
}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("windowed") / "mistral", "mistral", _WINDOWED["mistral"])


def bench_of(model: Path, folder: Path, **settings: Any) -> LoadedRun:
    return set_up(small(model, **settings), folder, device="cpu", progress=Silent())


def nothing_was_searched(folder: Path) -> bool:
    return {path.name.split("-")[0] for path in folder.iterdir()} == {DATABASE}


@pytest.mark.parametrize("kind", _WINDOWED)
def test_a_window_shorter_than_the_text_is_refused_before_text_is_read(kind: str, tmp_path: Path) -> None:
    model = saved(tmp_path / kind, kind, _WINDOWED[kind])
    with pytest.raises(UserError) as refused:
        bw.pipeline.search(small(model, sequence_length=_WINDOW + 1), tmp_path / "run")
    sentence(refused.value, _WINDOW, _WINDOW + 1, "--sequence-length")
    assert not (tmp_path / "run").exists()


def test_a_text_within_the_window_is_searched(windowed: Path, tmp_path: Path) -> None:
    bench = bench_of(windowed, tmp_path / "run", sequence_length=_WINDOW, n_calibration=2, n_held_out=2)
    require_parity(bench)
    assert bench.store.has_text("parity")


def test_other_targets_compute_the_window(windowed: Path, tmp_path: Path) -> None:
    bench = bench_of(windowed, tmp_path / "run", sequence_length=48, target="native", formats=("INT4_G32",))
    require_parity(bench)
    assert parity_text_of(bench) == {}


def test_an_engine_that_computes_something_else_ends_the_run_with_where(windowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that nobody knows of shows in the comparison, with the token from which on it does."""
    monkeypatch.setattr(parity, "window_ignored", lambda _: 0)
    bench = bench_of(windowed, tmp_path / "run", sequence_length=48)
    with pytest.raises(ModelError) as refused:
        require_parity(bench)
    told = sentence(refused.value, windowed, HEALTHY_NATS)
    token = int(told.partition("from about token ")[2].split()[0])
    assert _WINDOW < token <= _WINDOW + 5
    assert not bench.store.has_text("parity")
    assert not (bench.folder / "original.gguf").exists()


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2, "intermediate_size": 32}, "attn_k_norm.weight' has wrong"),
        ("qwen3", {"head_dim": 32, "attention_bias": True}, "wrong number of tensors"),
    ],
)
def test_what_llama_cpp_refuses_is_refused_before_the_search_with_its_reason(
    kind: str, settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    model = saved(tmp_path / kind, kind, settings)
    with pytest.raises(ModelError) as refused:
        bw.pipeline.search(small(model), tmp_path / "run")
    sentence(refused.value, model, reason, "--target")
    assert not (tmp_path / "run" / "levels").exists()


def test_it_is_asked_once_and_reported(llama_96: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(llama_96, tmp_path / "run")
    require_parity(bench)
    before = parity_text_of(bench)
    ((heading, told),) = before.items()
    assert "llama.cpp" in heading
    assert "up to 24 tokens" in told
    assert 0 < float(told.split()[0]) < 0.001
    assert not (bench.folder / "original.gguf").exists()
    monkeypatch.setattr(parity, "LlamaCpp", None)
    require_parity(bench_of(llama_96, tmp_path / "run"))
    assert parity_text_of(bench) == before


def test_a_file_is_itself_the_original(gguf_quantized: Path, tmp_path: Path) -> None:
    bench = bench_of(gguf_quantized, tmp_path / "run")
    with parity.original_file(bench.model, tmp_path) as path:
        assert path == gguf_quantized
    require_parity(bench)
    assert gguf_quantized.exists()


def test_text_that_llama_cpp_cuts_otherwise_ends_the_run(llama_96: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "tokenizes_alike", lambda *_: False)
    with pytest.raises(ModelError) as refused:
        require_parity(bench_of(llama_96, tmp_path / "run"))
    sentence(refused.value, llama_96, "tokenizer")


def test_contexts_are_of_four_lengths_and_as_long_as_what_is_measured() -> None:
    found = parity_contexts(np.arange(6 * 40).reshape(6, 40), 1000)
    assert [len(context) for context in found] == [10] * 4 + [20] * 4 + [30] * 4 + [40] * 4
    assert [int(context[0]) for context in found] == [0, 40, 80, 120] * 4
    assert max(len(context) for context in parity_contexts(np.zeros((2, 128), dtype=np.int64), 128)) == 120


def test_a_single_context_that_differs_is_no_fault_and_all_long_ones_are() -> None:
    lengths = [8, 16, 24, 32] * 4
    flips = np.full(16, 1e-4)
    flips[[3, 6, 9]] = 0.5
    assert flips[steady_context(flips, lengths)] < HEALTHY_NATS
    beyond = np.where(np.array(lengths) > 24, 0.7, 1e-4)
    assert beyond[steady_context(beyond, lengths)] == 0.7
    assert lengths[steady_context(beyond, lengths)] == 32


@pytest.mark.parametrize(
    ("nats", "is_refused"),
    [
        ("0.0001 0.0001 0.0001 0.0002 0.3523 0.0002 0.0001 0.0001 0.0001 0.0002 0.0001 0.0001 0.0001 0.0003 0.0001 0.0002", False),  # dots1
        ("0.0073 0.0000 0.7784 0.0001 0.0061 0.0001 0.0001 0.0000 0.0052 0.0001 0.0000 0.0001 0.0001 0.0001 0.0002 0.0003", False),  # MiniMax-M2
        ("0.0069 0.0088 0.0043 0.0170 0.0168 0.0034 0.0266 0.0356 0.0160 0.3398 0.0731 0.1100 0.0769 0.0512 0.1697 0.0908", True),  # gpt-oss, YaRN
        ("0.4356 1.1115 0.8044 0.8174 3.9619 5.0392 4.3603 2.3580 1.2106 1.3639 0.9507 3.9236 2.9908 2.2104 2.3129 3.2113", True),  # Phi-3, a window
    ],
)
def test_experts_that_flip_are_told_from_another_computation(nats: str, is_refused: bool) -> None:
    """Divergences of random models in llama.cpp, four contexts of each length."""
    found = np.array([float(word) for word in nats.split()])
    lengths = [len(context) for context in parity_contexts(np.zeros((4, 128), dtype=np.int64), 256)]
    assert (found[steady_context(found, lengths)] > HEALTHY_NATS) == is_refused


def test_a_check_refuses_contexts_beyond_the_window(windowed: Path) -> None:
    with pytest.raises(ModelError) as refused:
        parity.require_window(load(str(windowed)), _WINDOW + 1)
    sentence(refused.value, _WINDOW)


def parity_text_of(bench: LoadedRun) -> dict[str, str]:
    unused: Any = None
    return parity_text(bw.pipeline.Run(bench.folder, bench.store, bench.settings, unused, unused, unused, unused, 0))
