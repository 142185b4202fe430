"""Weights that few formats hold, or none: named, not offered where they cannot be held, and kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bitwright.compress import Codec, GgmlCodec, PackedTensors, extremes, integer_codec, load, measure_distortion, packed_codec, rounding_named
from bitwright.engines import LLAMA_CPP
from bitwright.errors import ModelError
from bitwright.progress import Silent
from bitwright.spaces import INTEGER_FORMATS, PACKED_FORMATS, Format, IntegerFormat, PackedFormat, Tensor, Unit
from tests.compress import made_sources as made
from tests.sentences import sentence

_INTEGERS: tuple[tuple[Codec, Format], ...] = (
    *((integer_codec(), form) for form in INTEGER_FORMATS if isinstance(form, IntegerFormat)),
    *((packed_codec(), form) for form in PACKED_FORMATS if isinstance(form, PackedFormat)),
)
_DENSE = Unit("q", 0, "attn_q", (Tensor("blk.0.attn_q.weight", (8, 256), "F32"),))


def error(codec: Codec, form: Format, weights: np.ndarray) -> float:
    """Squared error relative to that of zeros."""
    decoded = codec.decode(codec.encode(weights, form, np.empty((0, weights.shape[1]), np.float32)), form, weights.shape)
    wide = weights.astype(np.float64)
    return float(np.square(decoded - wide).sum() / np.square(wide).sum())


def normal(magnitude: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((4, 256)) * magnitude).clip(-6e4, 6e4).astype(np.float32)


@given(pair=st.sampled_from(_INTEGERS), magnitude=st.floats(-30, 4).map(lambda x: 10.0**x), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=80)
def test_no_integers_are_worse_than_zeros_whatever_the_magnitude(pair: tuple[Codec, Format], magnitude: float, seed: int) -> None:
    assert error(*pair, normal(magnitude, seed)) <= 1


@pytest.mark.parametrize("pair", _INTEGERS, ids=lambda pair: pair[1].name)
@pytest.mark.parametrize("magnitude", [3e-8, 1e-7, 5e-7, 2e-6])
def test_subnormal_scales_decode(pair: tuple[Codec, Format], magnitude: float) -> None:
    assert error(*pair, normal(magnitude)) <= 1


@pytest.mark.parametrize("rounding", ["rtn", "clip", "hqq"])
@pytest.mark.parametrize("name", ["INT8_G32", "INT6_ROW", "INT7_G128"])
def test_fine_integers_of_tiny_weights_are_nearly_exact(rounding: str, name: str) -> None:
    """Half floats begin at 6e-8, so weights near 5e-7 are kept to a twentieth of their power, whatever places the levels."""
    form = next(form for form in INTEGER_FORMATS if form.name == name)
    assert error(integer_codec(rounding_named(rounding, {})), form, normal(5e-7)) < 0.05


class Scaled(made.MadeSource):
    """Normal weights of one magnitude."""

    magnitude = 1e-6

    def read(self, tensor: Tensor) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(tensor.shape).astype(np.float32) * np.float32(self.magnitude)


@pytest.mark.parametrize("magnitude", [1e-30, 3e-8, 1e-6, 1e-2, 1e4])
def test_no_pair_of_libggml_that_is_worse_than_zeros_is_worth_trying(magnitude: float, tmp_path: Path) -> None:
    source = Scaled(_DENSE.tensors)
    source.magnitude = magnitude
    menu = ("F16", "Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "Q4_0", "IQ4_NL", "Q3_K", "Q2_K")
    space = LLAMA_CPP.space((_DENSE,), menu=menu, fixed_bytes=0, n_weights=1)
    found = measure_distortion(space, PackedTensors(tmp_path, source, GgmlCodec(), {}), progress=Silent()).weighted[0]
    tried = {form.name: value for form, value in zip(space.formats, found, strict=True) if not np.isnan(value)}
    assert max(tried.values()) <= 1
    assert ("Q4_K" in tried) == (magnitude != 1e-6)  # whose minima libggml rounds to many times the weights there
    assert (tried["Q8_0"] == 1) == (magnitude < 1e-6)


def test_a_unit_keeps_the_best_pair_where_all_are_worse_than_zeros(tmp_path: Path) -> None:
    space = LLAMA_CPP.space((_DENSE,), menu=["Q4_K", "Q5_K"], fixed_bytes=0, n_weights=1)
    found = measure_distortion(space, PackedTensors(tmp_path, Scaled(_DENSE.tensors), GgmlCodec(), {}), progress=Silent()).weighted[0]
    assert (~np.isnan(found)).sum() == 1
    assert np.nanmin(found) > 1


@pytest.mark.parametrize("name", ["Q4_0", "F16", "BF16", "F32"])
def test_a_format_takes_what_it_holds_and_no_more(name: str) -> None:
    form, none = LLAMA_CPP.format(name), np.empty((0, 256), np.float32)
    most = min(GgmlCodec().largest_weight(form), float(np.finfo(np.float32).max))
    weights = np.full((1, 256), most, np.float32)
    decoded = GgmlCodec().decode(GgmlCodec().encode(weights, form, none), form, weights.shape)
    assert np.isfinite(decoded).all()
    if np.isfinite(GgmlCodec().largest_weight(form)):
        with pytest.raises(ModelError) as refused:
            GgmlCodec().encode(weights * np.float32(1.003), form, none)
        sentence(refused.value, name)


def test_packed_integers_hold_what_half_floats_do_not() -> None:
    """Scales of packed integers are bfloat16."""
    for form in PACKED_FORMATS:
        if isinstance(form, PackedFormat):
            assert error(packed_codec(), form, normal(1e4) * np.float32(1e6)) < 1


# --- models


def changed(model: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a model with some weights of its only shard changed."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_large_weights_are_found_by_the_engine_s_names(llama_96: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5

    assert extremes(load(str(llama_96))) == {}
    assert extremes(load(str(changed(llama_96, tmp_path / "model", change)))) == {"blk.1.ffn_up.weight": pytest.approx(1e5, rel=0.01)}


@pytest.mark.parametrize(
    ("parameter", "name"),
    [
        ("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"),
        ("model.layers.0.input_layernorm.weight", "model.layers.0.input_layernorm.weight"),
    ],
)
def test_weights_that_are_no_numbers_and_reach_the_logits_are_refused_by_name(parameter: str, name: str, llama_96: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[parameter].view(-1)[7] = float("nan")

    with pytest.raises(ModelError) as refused:
        load(str(changed(llama_96, tmp_path / "model", change)))
    sentence(refused.value, name)


def test_what_no_text_reaches_may_be_undefined(llama_96: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["model.embed_tokens.weight"][383] = float("inf")

    (value,) = extremes(load(str(changed(llama_96, tmp_path / "model", change)))).values()
    assert value == np.inf


def test_a_level_that_cannot_be_is_named(llama_96: Path, tmp_path: Path) -> None:
    class Large(made.MadeSource):
        def read(self, tensor: Tensor) -> np.ndarray:
            return np.full(tensor.shape, 1e5, np.float32)

    levels = PackedTensors(tmp_path, Large(_DENSE.tensors), GgmlCodec(), {})
    with pytest.raises(ModelError) as refused:
        levels.encode(_DENSE.tensors[0], LLAMA_CPP.format("Q8_0"))
    sentence(refused.value, "blk.0.attn_q.weight", "Q8_0", "1e+05")
