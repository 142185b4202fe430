"""GGUF files: the size that was counted is the size on disk, everything is carried over, and a broken file is refused."""

import errno
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.compress import Bytes, GgufSource, KeyValue, Source, open_source
from bitwright.engines import LLAMA_CPP, Recipe
from bitwright.engines.llama_cpp.gguf_writer import fixed_bytes, write_gguf
from bitwright.errors import BrokenPromiseError, ModelError, OutputError
from bitwright.spaces import Tensor, discover
from tests.compress import made_sources as made
from tests.sentences import sentence

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
MODELS = ["llama_256", "llama_96", "llama_tied", "llama_gqa", "tiny_mixtral"]
# What a writer may change: the label of the whole file, and how far its tensors are padded.
REWRITTEN = {"general.file_type", "general.alignment"}


def carried(source: Source) -> list[KeyValue]:
    """The metadata that a copy must hold too, float32 as the file rounds it."""
    kept = [entry for entry in source.metadata if entry.key not in REWRITTEN]
    return [replace(entry, value=float(np.float32(entry.value))) if entry.type is GGUFValueType.FLOAT32 else entry for entry in kept]


def write(path: Path, source: Source, formats: dict[str, str], seed: int = 1) -> dict[str, Bytes]:
    """The source in `formats`, their bytes made up; those bytes."""
    rng, given_bytes = np.random.default_rng(seed), {}

    def packed(tensor: Tensor) -> Bytes:
        given_bytes[tensor.name] = made.random_bytes(tensor.shape, formats[tensor.name], rng)
        return given_bytes[tensor.name]

    write_gguf(path, Recipe(source, formats), packed)
    return given_bytes


def require_written(path: Path, source: Source, formats: dict[str, str], given_bytes: dict[str, Bytes]) -> GgufSource:
    again = GgufSource(path)
    assert again.tensors == tuple(replace(tensor, stored=formats.get(tensor.name, tensor.stored)) for tensor in source.tensors)
    assert carried(again) == carried(source)
    for tensor, written in zip(source.tensors, again.tensors, strict=True):
        expected = given_bytes[tensor.name] if tensor.name in formats else source.stored(tensor)
        assert np.array_equal(again.stored(written), expected)
    return again


@pytest.mark.parametrize("form", ["Q8_0", "Q4_K", "F16"])
def test_some_rows_are_those_of_the_whole(form: str, tmp_path: Path, llama_256: Path) -> None:
    source, name = open_source(str(llama_256)), "blk.0.ffn_down.weight"
    write(tmp_path / "m.gguf", source, {name: form})
    written = GgufSource(tmp_path / "m.gguf")
    tensor = next(tensor for tensor in written.tensors if tensor.name == name)
    np.testing.assert_array_equal(written.some_rows(tensor, 5, 23), written.read(tensor)[5:23])


@pytest.mark.slow
@given(tensors=made.tensors(), metadata=made.key_values(), data=st.data())
@in_one_folder
def test_the_size_is_counted_to_the_byte(tensors: tuple[Tensor, ...], metadata: tuple[KeyValue, ...], data: st.DataObject, tmp_path: Path) -> None:
    source = made.MadeSource(tensors, metadata)
    decided = data.draw(st.lists(st.sampled_from(tensors), unique=True))
    formats = {tensor.name: data.draw(st.sampled_from(made.fitting(tensor.shape))) for tensor in decided}
    path = tmp_path / "model.gguf"
    given_bytes = write(path, source, formats)
    counted = sum(LLAMA_CPP.stored_bytes(tensor.shape, LLAMA_CPP.format(formats[tensor.name])) for tensor in decided)
    assert fixed_bytes(source, formats, tmp_path) + counted == path.stat().st_size
    require_written(path, source, formats, given_bytes)
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_space_counts_the_size_of_a_model_to_the_byte(model: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = open_source(str(request.getfixturevalue(model)))
    units, rng = discover(source.tensors), np.random.default_rng(0)
    fixed = fixed_bytes(source, [tensor.name for unit in units for tensor in unit.tensors], tmp_path)
    space = LLAMA_CPP.space(units, menu=(), fixed_bytes=fixed, n_weights=sum(tensor.n_weights for tensor in source.tensors))
    random_choices = [np.array([rng.choice(np.flatnonzero(row)) for row in space.offered]) for _ in range(5)]
    for choice in (*random_choices, space.smallest(), space.uniform(LLAMA_CPP.format("Q4_K"))):
        path = tmp_path / "model.gguf"
        formats = space.names(choice)
        given_bytes = write(path, source, formats)
        assert path.stat().st_size == space.total_bytes(choice)
        require_written(path, source, formats, given_bytes)


@pytest.mark.parametrize("name", ["gguf_256", "gguf_quantized"])
def test_a_copy_has_the_same_bytes(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file, copy, again = request.getfixturevalue(name), tmp_path / "copy.gguf", tmp_path / "again.gguf"
    source = GgufSource(file)
    write(copy, source, {})
    assert copy.read_bytes() == file.read_bytes()
    assert require_written(copy, source, {}, {}).fingerprint == source.fingerprint
    write(again, GgufSource(copy), {})
    assert again.read_bytes() == copy.read_bytes()


def test_a_copy_of_a_folder_is_what_llama_cpp_would_be_given(llama_256: Path, gguf_256: Path) -> None:
    source, written = open_source(str(llama_256)), GgufSource(gguf_256)
    assert carried(written) == carried(source)
    assert written.architecture == source.architecture == "llama"
    assert next(entry for entry in written.metadata if entry.key == "general.file_type").value == gguf.LlamaFileType.MOSTLY_BF16


def test_quantized_tensors_are_read_as_their_codec_reads_them(gguf_quantized: Path) -> None:
    source = GgufSource(gguf_quantized)
    raw = {tensor.name: tensor for tensor in GGUFReader(gguf_quantized).tensors}
    assert {"Q4_K", "Q6_K", "Q8_0", "IQ4_NL", "BF16", "F32"} == {tensor.stored for tensor in source.tensors}
    for tensor in source.tensors:
        expected = gguf.quants.dequantize(raw[tensor.name].data, raw[tensor.name].tensor_type)
        np.testing.assert_allclose(source.read(tensor).reshape(expected.shape), expected, rtol=1e-6, atol=1e-8)


def test_a_file_of_wider_alignment_is_read_and_written_at_32(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "wide.gguf", "llama")
    writer.add_custom_alignment(256)
    for t in range(3):
        writer.add_tensor(f"blk.{t}.attn_q.weight", np.full((1, 5), t, dtype=np.float32))
    finish(writer)
    source = GgufSource(tmp_path / "wide.gguf")
    write(tmp_path / "copy.gguf", source, {})
    copy = require_written(tmp_path / "copy.gguf", source, {}, {})
    assert "general.alignment" not in {entry.key for entry in copy.metadata}
    assert (tmp_path / "copy.gguf").stat().st_size == fixed_bytes(source, (), tmp_path)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_fingerprint_is_of_names_shapes_formats_and_contents() -> None:
    shape = (2, 32)
    tensors = [Tensor("a.weight", shape, "F16")]
    same, others = made.MadeSource(tensors), [made.MadeSource(tensors, seed=1)]
    others += [made.MadeSource([replace(tensors[0], **change)]) for change in ({"name": "b.weight"}, {"shape": (1, 64)}, {"stored": "BF16"})]
    assert made.MadeSource(tensors).fingerprint == same.fingerprint
    assert len({same.fingerprint, *(other.fingerprint for other in others)}) == 5


# --- writing that fails


TWO = made.MadeSource([Tensor("blk.0.attn_q.weight", (4, 256), "F32"), Tensor("blk.1.attn_q.weight", (4, 256), "F32")])
BOTH = {tensor.name: "Q8_0" for tensor in TWO.tensors}


def second_fails(error: BaseException) -> Any:
    def packed(tensor: Tensor) -> Bytes:
        if tensor is TWO.tensors[1]:
            raise error
        return made.random_bytes(tensor.shape, "Q8_0", np.random.default_rng(0))

    return packed


@pytest.mark.parametrize("error", [RuntimeError("broken codec"), KeyboardInterrupt(), ModelError("Weights must be finite.")])
def test_what_packing_raises_comes_through_and_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        write_gguf(tmp_path / "model.gguf", Recipe(TWO, BOTH), second_fails(error))
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"older")
    with pytest.raises(OutputError) as caught:
        write_gguf(path, Recipe(TWO, BOTH), second_fails(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    sentence(caught.value, path, "No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]
    assert path.read_bytes() == b"older"


def test_the_system_stopping_a_write_half_way_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    try:
        with pytest.raises(OutputError) as caught:
            write(tmp_path / "model.gguf", TWO, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sentence(caught.value, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "model.gguf", TWO, {})
    assert (tmp_path / "model.gguf").stat().st_size > 6000


@pytest.mark.parametrize("name", ["file/model.gguf", "file/deeper/model.gguf", f"{'x' * 300}.gguf", "folder"])
def test_a_place_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        write_gguf(tmp_path / name, Recipe(TWO, {}), second_fails(AssertionError()))
    sentence(caught.value, tmp_path / name)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_scratch_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(OutputError) as caught:
        fixed_bytes(TWO, (), tmp_path / "file")
    sentence(caught.value, tmp_path / "file")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "model.gguf", TWO, BOTH)
    assert GgufSource(tmp_path / "a" / "b" / "model.gguf").tensors[0].stored == "Q8_0"


@pytest.mark.parametrize("n_bytes", [0, 4 * 8 * 34 - 1, 4 * 8 * 34 + 1])
def test_bytes_of_another_size_break_the_promise(n_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(BrokenPromiseError) as caught:
        write_gguf(tmp_path / "model.gguf", Recipe(TWO, BOTH), lambda tensor: np.zeros(n_bytes, dtype=np.uint8))
    sentence(caught.value, "blk.0.attn_q.weight")
    assert list(tmp_path.iterdir()) == []
