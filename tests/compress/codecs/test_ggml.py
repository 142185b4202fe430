"""libggml's quantizers: the contract of codecs, and agreement with the `gguf` package, which decodes on its own."""

import importlib.metadata
import importlib.util
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import GgmlCodec
from bitwright.compress.models.gguf import libggml
from bitwright.engines import LLAMA_CPP
from bitwright.errors import LibraryError, ModelError
from bitwright.spaces import GGML_FORMATS, Format
from bitwright.testing.codec_contract import CodecContract, importance, normal, unknown
from tests.sentences import sentence

CODEC = GgmlCodec()
#: Σ ΔW² / Σ W² on normal weights was measured and lies a fifth below these.
WORST = {
    "F32": 0.0,
    "F16": 6e-8,
    "BF16": 4e-6,
    "Q8_0": 3.6e-5,
    "Q6_K": 4e-4,
    "Q5_1": 1.6e-3,
    "Q5_K": 1.65e-3,
    "Q5_0": 2.1e-3,
    "Q4_1": 6.4e-3,
    "Q4_K": 6.6e-3,
    "Q4_0": 8.7e-3,
    "IQ4_NL": 7.3e-3,
    "IQ4_XS": 7.5e-3,
    "Q3_K": 0.028,
    "IQ3_S": 0.027,
    "IQ3_XXS": 0.048,
    "Q2_K": 0.097,
    "IQ2_S": 0.086,
    "IQ2_XS": 0.127,
    "IQ2_XXS": 0.163,
    "IQ1_M": 0.3,
    "IQ1_S": 0.335,
}
SLOW = {"IQ1_M", "IQ1_S", "IQ2_S", "IQ2_XS", "IQ2_XXS"}  # libggml takes seconds to begin with them, which test_slow_ggml.py does
QUICK = [form for form in GGML_FORMATS if form.name not in SLOW]
COARSE = [form for form in GGML_FORMATS if form.name.startswith(("IQ1", "IQ2", "IQ3"))]


class TestGgml(CodecContract):
    codec = CODEC
    formats = tuple(QUICK)
    worst = WORST


def encoded(form: Format, seed: int, n_rows: int = 3) -> tuple[Any, tuple[int, int]]:
    shape = (n_rows, max(256, form.block))
    return CODEC.encode(normal(*shape, seed), form, importance(1, shape[1])), shape


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=5)
def test_the_gguf_package_decodes_the_same(seed: int) -> None:
    require_decoded_alike(QUICK, seed)


def require_decoded_alike(forms: Iterable[Format], seed: int) -> None:
    for form in forms:
        packed, shape = encoded(form, seed)
        kind = GGMLQuantizationType[form.name]
        rows = packed.view(np.float32 if form.name == "F32" else np.float16 if form.name == "F16" else np.uint8).reshape(shape[0], -1)
        expected = quants.dequantize(rows, kind)
        np.testing.assert_allclose(CODEC.decode(packed, form, shape), expected, rtol=2e-6, atol=1e-7, err_msg=form.name)


@pytest.mark.parametrize("name", ["Q8_0", "BF16", "F16", "Q4_0", "Q5_0"])
def test_the_gguf_package_encodes_the_same(name: str) -> None:
    weights, form = normal(8, 256), LLAMA_CPP.format(name)
    expected = quants.quantize(weights, GGMLQuantizationType[name]).view(np.uint8).reshape(-1)
    assert np.array_equal(CODEC.encode(weights, form, unknown(256)), expected)


def test_f32_is_exact() -> None:
    weights, form = normal(5, 7), LLAMA_CPP.format("F32")
    weights[0, :3] = [0.0, np.finfo(np.float32).tiny, np.finfo(np.float32).max]
    packed = CODEC.encode(weights, form, unknown(7))
    assert packed.tobytes() == weights.tobytes()
    assert np.array_equal(CODEC.decode(packed, form, weights.shape), weights)


@pytest.mark.parametrize("form", QUICK, ids=lambda form: form.name)
def test_the_number_of_threads_changes_nothing(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, channels = normal(24, 256), importance(1, 256)
    monkeypatch.setattr(libggml, "_ENCODED_AT_ONCE", 1 << 30)
    monkeypatch.setattr(libggml, "_DECODED_AT_ONCE", 1 << 30)
    whole = CODEC.encode(weights, form, channels)
    expanded = CODEC.decode(whole, form, weights.shape)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(libggml, "_ENCODED_AT_ONCE", 3 * 256)
    monkeypatch.setattr(libggml, "_DECODED_AT_ONCE", 5 * 256)
    assert np.array_equal(CODEC.encode(weights, form, channels), whole)
    assert np.array_equal(CODEC.decode(whole, form, weights.shape), expanded)


@given(n_rows=st.integers(1, 240), n_columns=st.integers(1, 300), at_once=st.integers(1, 5000))
def test_blocks_of_rows_cover_each_row_once(n_rows: int, n_columns: int, at_once: int) -> None:
    blocks = libggml._row_blocks((n_rows, n_columns), at_once)
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(n_rows))
    assert all((stop - start) * n_columns <= max(at_once, n_columns) for start, stop in blocks)


@pytest.mark.parametrize("form", [form for form in COARSE if form.needs_importance], ids=lambda form: form.name)
def test_a_format_that_needs_importance_does_not_crash_without(form: Format) -> None:
    """libggml aborts the process where it requires importance and gets none, so it must never be asked."""
    with pytest.raises(ModelError) as caught:
        CODEC.encode(normal(2, 256), form, unknown(256))
    sentence(caught.value, form.name, "importance")


@pytest.mark.parametrize("form", [form for form in COARSE if form in QUICK], ids=lambda form: form.name)
def test_importance_helps_the_channels_that_matter(form: Format) -> None:
    weights, channels = normal(16, 256), np.ones((1, 256), dtype=np.float32)
    channels[:, ::4] = 100
    errors = {}
    for name, given_channels in (("flat", np.ones_like(channels)), ("known", channels)):
        change = CODEC.decode(CODEC.encode(weights, form, given_channels), form, weights.shape) - weights
        errors[name] = float((channels * change**2).sum())
    assert errors["known"] < errors["flat"]


def test_too_large_weights_are_named() -> None:
    weights = normal(2, 256)
    weights[1, 5] = 70000
    with pytest.raises(ModelError) as caught:
        CODEC.encode(weights, LLAMA_CPP.format("IQ3_S"), unknown(256))
    sentence(caught.value, "7e+04", "65504", "IQ3_S")
    for name in ("F32", "BF16"):
        form = LLAMA_CPP.format(name)
        assert CODEC.decode(CODEC.encode(weights, form, unknown(256)), form, weights.shape)[1, 5] == pytest.approx(70000, rel=0.01)


@pytest.mark.parametrize("form", ["I8", "I32", "F64"])
def test_types_that_are_no_weights_are_refused(form: str) -> None:
    with pytest.raises(ModelError) as caught:
        libggml.dequantize(np.zeros(64, dtype=np.uint8), form, (1, 8))
    sentence(caught.value, form)


def test_types_that_no_plan_chooses_are_read() -> None:
    """MXFP4 of gpt-oss: a shared power of two and 32 values of four bits."""
    packed = np.full(17, 0x22, dtype=np.uint8)  # all values are the code 2, which stands for 1.0
    packed[0] = 127  # 2⁰
    assert libggml.dequantize(packed, "MXFP4", (1, 32)).tolist() == [[1.0] * 32]


class TestLibrary:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Any:
        libggml.library.cache_clear()
        yield
        libggml.library.cache_clear()

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(LibraryError) as caught:
            libggml.library()
        sentence(caught.value, "xllamacpp", "none is installed", "pip install")

    def test_an_old_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "2026.9.20000")
        with pytest.raises(LibraryError) as caught:
            libggml.library()
        sentence(caught.value, "2026.9.20000", "2026.10.11549")

    def test_a_package_without_its_library_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
        with pytest.raises(LibraryError) as caught:
            libggml.library()
        sentence(caught.value, tmp_path)

    def test_a_missing_symbol_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(libggml, "_SYMBOLS", (*libggml._SYMBOLS, "ggml_of_the_future"))
        with pytest.raises(LibraryError) as caught:
            libggml.library()
        sentence(caught.value, "ggml_of_the_future", "2026.10.11549")
