"""A split file has exactly the bytes that were counted before any choice, llama.cpp's names and keys, and is read as one by it and by us."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFValueType

from bitwright.compress import GgmlCodec, GgufSource, PackedTensors, load, open_source
from bitwright.engines import Recipe, engine_named
from bitwright.engines.llama_cpp.gguf_container import GgufContainer
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.llama_cpp.split_gguf_container import SplitGgufContainer, split_bytes
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.errors import ModelError, OutputError, UserError
from bitwright.written_files import is_as_written
from tests.compress import tiny_models as tiny
from tests.sentences import sentence

pytestmark = pytest.mark.slow

AT_MOST = 300_000
MENU = ("Q8_0", "Q4_K", "Q2_K")


def recipe_of(path: Path, form: str) -> Recipe:
    """Every matrix in one format, or as it is stored for an empty one."""
    source = GgufSource(path)
    return Recipe(source, {tensor.name: form for tensor in source.tensors if len(tensor.shape) == 2 and form})


def packed_by(recipe: Recipe, folder: Path) -> PackedTensors:
    return PackedTensors(folder / "levels", recipe.source, GgmlCodec(), {})


def write(container: SplitGgufContainer | GgufContainer, path: Path, recipe: Recipe) -> Path:
    levels = packed_by(recipe, path.parent)
    return container.write(path, recipe, lambda tensor: levels.encode(tensor, LLAMA_CPP.format(recipe.formats[tensor.name])))


@pytest.mark.parametrize("form", ["", *MENU])
@pytest.mark.parametrize("at_most", [2**16, AT_MOST, 10**9])
def test_the_sum_of_the_parts_is_counted_before_the_formats_are_known(gguf_256: Path, tmp_path: Path, form: str, at_most: int) -> None:
    container, recipe = SplitGgufContainer(at_most), recipe_of(gguf_256, form)
    first = write(container, tmp_path / "m.gguf", recipe)
    chosen = sum(LLAMA_CPP.format(form).size_bytes(tensor.shape) for tensor in recipe.source.tensors if tensor.name in recipe.formats)
    assert container.size_bytes(first) == container.fixed_bytes(recipe.source, recipe.formats, tmp_path) + chosen
    assert split_bytes(recipe.source, at_most, tmp_path) == split_bytes(GgufSource(first), at_most, tmp_path)
    for part in container.files(first):
        assert part.stat().st_size <= at_most or len(GGUFReader(part).tensors) == 1


def test_names_and_keys_are_those_of_llama_cpp(gguf_256: Path, tmp_path: Path) -> None:
    recipe = recipe_of(gguf_256, "Q8_0")
    first = write(SplitGgufContainer(AT_MOST), tmp_path / "m.gguf", recipe)
    parts = SplitGgufContainer(AT_MOST).files(first)
    n = len(parts)
    assert n > 2
    assert [part.name for part in parts] == [f"m-{i + 1:05d}-of-{n:05d}.gguf" for i in range(n)]
    for i, part in enumerate(parts):
        fields = GGUFReader(part).fields
        assert [fields[key].types for key in ("split.no", "split.count", "split.tensors.count")] == [
            [GGUFValueType.UINT16],
            [GGUFValueType.UINT16],
            [GGUFValueType.INT32],
        ]
        assert [fields[key].contents() for key in ("split.no", "split.count", "split.tensors.count")] == [i, n, len(recipe.source.tensors)]
        assert ("general.architecture" in fields) == (i == 0)


def test_llama_cpp_and_the_reader_find_the_same_model_as_in_one_file(gguf_256: Path, tmp_path: Path) -> None:
    recipe = recipe_of(gguf_256, "Q4_K")
    whole, first = (write(container, tmp_path / "m.gguf", recipe) for container in (GgufContainer(), SplitGgufContainer(AT_MOST)))
    one, several = GgufSource(whole), GgufSource(first)
    assert [(tensor, one.stored(tensor).tobytes()) for tensor in one.tensors] == [
        (tensor, several.stored(tensor).tobytes()) for tensor in several.tensors
    ]
    assert one.metadata == several.metadata
    assert several.split_max_bytes == AT_MOST
    expected, found = (LlamaCpp(path, n_vocabulary=tiny.N_TOKENS, n_threads=1).next_token([1, 5, 9]) for path in (whole, first))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llama_gqa", "llama_tied"])
def test_a_split_file_alone_is_the_model_of_its_folder(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = load(str(request.getfixturevalue(name)))
    first = SplitGgufContainer(2**16).write(tmp_path / "m.gguf", Recipe(folder.source, {}), folder.source.stored)
    split = load(str(first))
    assert split.source.fingerprint == folder.source.fingerprint
    assert split.pieces == folder.pieces
    expected = folder.module.state_dict()
    assert all(torch.equal(weight, expected[key]) for key, weight in split.module.state_dict().items())
    ids = torch.tensor([[1, 17, 30, 42]])
    with torch.inference_mode():
        assert torch.equal(split.module(ids).logits, folder.module(ids).logits)


def test_a_split_file_that_transformers_misreads_is_refused_as_a_whole_one_is(tiny_mixtral: Path, tmp_path: Path) -> None:
    source = open_source(str(tiny_mixtral))
    for container in (GgufContainer(), SplitGgufContainer(2**16)):
        with pytest.raises(ModelError) as refused:
            load(str(container.write(tmp_path / "m.gguf", Recipe(source, {}), source.stored)))
        sentence(refused.value, "llama.expert_count")


def test_a_split_file_is_read_anew_where_a_later_part_has_changed(llama_gqa: Path, tmp_path: Path) -> None:
    source = open_source(str(llama_gqa))
    first = SplitGgufContainer(2**16).write(tmp_path / "m.gguf", Recipe(source, {}), source.stored)
    before = load(str(first)).source.fingerprint
    last = SplitGgufContainer(2**16).files(first)[-1]
    last.write_bytes(last.read_bytes()[:-2] + b"\x11\x11")
    assert load(str(first)).source.fingerprint != before


def test_every_part_is_recorded_and_a_foreign_one_stops_them_all(gguf_256: Path, tmp_path: Path) -> None:
    container, recipe = SplitGgufContainer(AT_MOST), recipe_of(gguf_256, "Q8_0")
    first = write(container, tmp_path / "m.gguf", recipe)
    parts = container.files(first)
    assert all(is_as_written(part, "model") for part in parts)
    assert set(json.loads((tmp_path / ".bitwright-files").read_text())["results"]) == {part.name for part in parts}
    before = [part.read_bytes() for part in parts]
    parts[-1].write_bytes(b"mine")
    with pytest.raises(OutputError) as refused:
        write(container, tmp_path / "m.gguf", recipe_of(gguf_256, "Q8_0"))
    sentence(refused.value, parts[-1])
    assert [part.read_bytes() for part in parts] == [*before[:-1], b"mine"]
    assert {path.name for path in tmp_path.iterdir()} == {*(part.name for part in parts), ".bitwright-files"}


def test_a_part_without_room_and_another_engine_are_refused() -> None:
    with pytest.raises(UserError) as refused:
        engine_named("llama.cpp").split(1000)
    sentence(refused.value, "--split-max-size", "1,000")
    for name in ("transformers", "vllm", "native"):
        with pytest.raises(UserError) as refused:
            engine_named(name).split(2 * 10**9)
        sentence(refused.value, name, "--split-max-size")
