"""Native checkpoints written by the container: sizes counted to the byte, weights read back and loaded, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from bitwright.compress import MODULE_VIEW, Source, applied, integer_codec, load, matrix_shape, open_source
from bitwright.engines import NATIVE, Container, Recipe, as_held, model_as_held
from bitwright.engines.by_name import container_of
from bitwright.engines.checkpoint_source import written_weights
from bitwright.engines.native.layout import NativeLayout
from bitwright.errors import BrokenPromiseError, ModelError
from bitwright.spaces import NATIVE_FORMATS, BlockFormat, Format, Tensor, discover, expert_of
from tests.sentences import sentence

pytestmark = pytest.mark.slow

PACKED = tuple(form for form in NATIVE_FORMATS if not isinstance(form, BlockFormat))


def planned(source: Source) -> dict[str, str]:
    """All formats by turns, usual ones and those that are offered by name alone."""
    usual, named = ([form for form in NATIVE_FORMATS if form.only_named == only] for only in (False, True))
    turns = [form for pair in zip(usual, reversed(named), strict=False) for form in pair]
    found: dict[str, str] = {}
    for tensor in (tensor for unit in discover(source.tensors) for tensor in unit.tensors):
        form = next(form for form in turns if form.fits(tensor.shape))
        turns.remove(form)
        found[tensor.name] = form.name
    return found


def build(model: Path, out: Path) -> tuple[Container, Recipe]:
    container, source = container_of(NATIVE, str(model)), as_held(open_source(str(model), MODULE_VIEW), NATIVE)
    recipe = Recipe(source, planned(source))
    codec = integer_codec()

    def packed(tensor: Tensor) -> np.ndarray:
        form = NATIVE.format(recipe.formats[tensor.name])
        return codec.encode(source.read(tensor), form, np.empty((0, tensor.shape[-1]), dtype=np.float32))

    container.write(out, recipe, packed)
    return container, recipe


@pytest.mark.parametrize("model", ["llama_96", "llama_tied", "llama_gqa", "tiny_mixtral", "gguf_256"])
def test_what_is_written_loads_with_its_weights_and_its_size(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(model)
    container, recipe = build(folder, tmp_path / "out")
    tensors = {tensor.name: tensor for tensor in recipe.source.tensors}
    chosen = sum(NATIVE.format(form).size_bytes(tensors[name].shape) for name, form in recipe.formats.items())
    assert container.size_bytes(tmp_path / "out") == container.fixed_bytes(recipe.source, recipe.formats, tmp_path) + chosen
    written = container.written(tmp_path / "out")
    assert {tensor.name: tensor.stored for tensor in written.tensors if tensor.name in recipe.formats} == recipe.formats
    for tensor in written.tensors:
        assert tensor.name not in recipe.formats or written.read(tensor).shape == matrix_shape(tensor)
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert module(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


@given(form=st.sampled_from(PACKED), n_rows=st.integers(1, 9), n_columns=st.integers(1, 99))
def test_a_layer_is_the_bytes_of_its_codec(form: Format, n_rows: int, n_columns: int) -> None:
    layout, shape = NativeLayout(), (n_rows, n_columns)
    assume(form.fits(shape))
    packed = integer_codec().encode(np.ones(shape, dtype=np.float32), form, np.empty((0, n_columns), dtype=np.float32))
    arrays = layout.arrays(packed, form, shape)
    assert {part: (dtype, len(arrays[part])) for part, (dtype, _) in layout.described(form, shape).items()} == {"weight": ("U8", len(packed))}
    assert np.array_equal(layout.packed(arrays, form, shape), packed)


def test_a_layer_without_a_format_is_named() -> None:
    reader = NativeLayout().reader(NativeLayout().settings({"a": PACKED[0]}, ()))
    assert reader("a") == PACKED[0]
    with pytest.raises(ModelError) as caught:
        reader("b")
    sentence(caught.value, "b has none")


def test_a_checkpoint_that_transformers_reads_otherwise_is_not_kept(tiny_mixtral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.engines.native.packed_modules.expanded_rows", lambda stored, form, shape, wanted: torch.zeros(shape))
    with pytest.raises(BrokenPromiseError) as caught:
        build(tiny_mixtral, tmp_path / "out")
    sentence(caught.value, "please report this")
    assert [*tmp_path.iterdir()] == []


def test_a_native_checkpoint_is_no_original(tiny_mixtral: Path, tmp_path: Path) -> None:
    build(tiny_mixtral, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["quant_method"] == "bitwright"
    for read in (load, open_source):
        with pytest.raises(ModelError) as caught:
            read(str(tmp_path / "out"))
        sentence(caught.value, tmp_path / "out", "give the model that it was made from")


def test_an_expert_that_is_dropped_is_not_there_and_never_chosen(tiny_mixtral: Path, tmp_path: Path) -> None:
    container, source = container_of(NATIVE, str(tiny_mixtral)), as_held(open_source(str(tiny_mixtral), MODULE_VIEW), NATIVE)
    formats = planned(source) | {tensor.name: "DROP" for tensor in source.tensors if expert_of(tensor.name) in {(0, 2), (1, 0)}}
    codec = integer_codec()

    def packed(tensor: Tensor) -> np.ndarray:
        form = NATIVE.format(formats[tensor.name])
        return codec.encode(source.read(tensor), form, np.empty((0, tensor.shape[-1]), dtype=np.float32))

    container.write(tmp_path / "out", Recipe(source, formats), packed)
    tensors = {tensor.name: tensor for tensor in source.tensors}
    chosen = sum(NATIVE.format(form).size_bytes(tensors[name].shape) for name, form in formats.items())
    assert container.size_bytes(tmp_path / "out") == container.fixed_bytes(source, formats, tmp_path) + chosen
    built, model = container.written(tmp_path / "out"), model_as_held(load(str(tiny_mixtral), view=MODULE_VIEW), NATIVE)
    ids = torch.arange(40).reshape(2, 20)
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.inference_mode(), applied(model, written_weights(built, formats)):
        assert torch.allclose(module(ids).logits, model.module(ids).logits, atol=1e-4)
    assert sum(name.endswith("down_proj.weight") for name, _ in module.named_parameters()) == 6
