"""GGUF files that are cut, changed or of another kind: refused in a sentence, never with another exception."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFEndian, GGUFReader, GGUFWriter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bitwright.compress import GgufSource
from bitwright.engines import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.errors import BrokenPromiseError, ModelError
from bitwright.spaces import Tensor
from tests.compress import made_sources as made
from tests.compress.models.gguf.test_reader import finish
from tests.sentences import sentence

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=75)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file with metadata of many kinds; its last byte is the last byte of a tensor."""
    path = tmp_path_factory.mktemp("whole") / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ï"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    for t, n_rows in enumerate((3, 1, 8)):
        writer.add_tensor(f"blk.{t}.attn_q.weight", np.arange(n_rows * 32, dtype=np.float32).reshape(n_rows, 32))
    finish(writer)
    return path.read_bytes()


def data_offset(path: Path) -> int:
    return GGUFReader(path).data_offset


def read_all(path: Path) -> list[np.ndarray]:
    source = GgufSource(path)
    return [source.read(tensor) for tensor in source.tensors]


def refused(path: Path, *values: object) -> str:
    with pytest.raises(ModelError) as caught:
        GgufSource(path)
    return sentence(caught.value, path, *values)


@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
@in_one_folder
def test_a_file_cut_anywhere_is_refused(share: float, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


def test_a_file_cut_by_a_byte_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole)
    assert len(read_all(path)) == 3
    path.write_bytes(whole[:-1])
    refused(path)


@pytest.mark.slow
@given(share=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), span=st.integers(1, 8))
@in_one_folder
def test_a_changed_header_is_refused_or_still_a_model(share: float, value: int, span: int, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "changed.gguf"
    path.write_bytes(whole)
    start = int(share * data_offset(path))
    changed = bytearray(whole)
    changed[start : start + span] = bytes(byte ^ value for byte in changed[start : start + span])
    path.write_bytes(changed)
    try:
        weights = read_all(path)
    except ModelError as error:
        sentence(error)
        return
    # a name or a value was changed: the weights are all there
    assert all(matrix.size for matrix in weights)


@given(content=st.binary(max_size=64), with_magic=st.booleans())
@in_one_folder
def test_any_bytes_are_refused(content: bytes, with_magic: bool, tmp_path: Path) -> None:
    path = tmp_path / "bytes.gguf"
    path.write_bytes((b"GGUF\x03\x00\x00\x00" if with_magic else b"") + content)
    refused(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<!doctype html>" * 9])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    refused(path, "download or convert it again")


@pytest.mark.parametrize("name", ["missing.gguf", "folder"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "model.gguf").write_bytes(whole)
    monkeypatch.setattr(np, "memmap", denied)
    refused(tmp_path / "model.gguf", "Permission denied")


Add = Callable[[GGUFWriter], None]


def made_file(path: Path, *adds: Add, architecture: str = "llama") -> Path:
    writer = GGUFWriter(path, architecture)
    for add in adds:
        add(writer)
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 32), dtype=np.float32))
    finish(writer)
    return path


def test_one_part_of_a_split_file_is_refused(tmp_path: Path) -> None:
    path = made_file(tmp_path / "model-00001-of-00003.gguf", lambda writer: writer.add_uint16("split.count", 3))
    refused(path, "given by its first part")
    assert GgufSource(made_file(tmp_path / "one.gguf", lambda writer: writer.add_uint16("split.count", 1))).tensors


@pytest.mark.parametrize("add", [lambda writer: writer.add_string("split.count", "3"), lambda writer: writer.add_array("split.count", [3])])
def test_a_count_of_parts_that_is_no_number_is_refused(add: Add, tmp_path: Path) -> None:
    refused(made_file(tmp_path / "model.gguf", add), "split.count")


def test_a_file_without_tensors_or_architecture_is_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    finish(writer)
    refused(tmp_path / "vocabulary.gguf", "hold tensors")
    raw = made_file(tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(raw.replace(b"general.architecture", b"general.architectur_"))
    refused(tmp_path / "model.gguf", "name its architecture")


def test_weights_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "big.gguf", "llama", endianess=GGUFEndian.BIG)
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 32), dtype=np.float32), tensor_endianess=GGUFEndian.LITTLE)
    finish(writer)
    refused(tmp_path / "big.gguf", "byte order")


def infos(*tensors: tuple[str, tuple[int, ...], int, int]) -> bytes:
    """A file with these tensors (name, dimensions, type, offset) and 4096 bytes of data, written by hand."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    raw = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1) + text("general.architecture") + struct.pack("<I", 8) + text("llama")
    for name, dims, kind, offset in tensors:
        raw += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, offset)
    return raw + bytes(-len(raw) % 32 + 4096)


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param([("a.weight", (), 0, 0)], id="no dimensions"),
        pytest.param([("a.weight", (0, 4), 0, 0)], id="rows of no weights"),
        pytest.param([("a.weight", (32, 0), 0, 0)], id="no rows"),
        pytest.param([("a.weight", (2**32, 2**32), 0, 0)], id="a product beyond 64 bits"),
        pytest.param([("a.weight", (2**63, 4), 0, 0)], id="a product that wraps to nothing"),
        pytest.param([("a.weight", (33,), 8, 0)], id="a row of a block and a bit"),
        pytest.param([("a.weight", (32,), 99, 0)], id="an unknown type"),
        pytest.param([("a.weight", (32,), 0, 2**64 - 64)], id="data before the file"),
        pytest.param([("a.weight", (32,), 0, 4064)], id="data behind the end"),
        pytest.param([("a.weight", (32,), 0, 8)], id="data off the alignment"),
        pytest.param([("a.weight", (32,), 0, 0), ("b.weight", (32,), 0, 0)], id="two tensors in one place"),
        pytest.param([("a.weight", (32,), 0, 0), ("b.weight", (32,), 0, 96)], id="overlapping tensors"),
        pytest.param([("a.weight", (32,), 0, 0), ("a.weight", (32,), 0, 128)], id="one name twice"),
        pytest.param([("a.weight", (2**40,), 0, 0)], id="more weights than data"),
    ],
)
def test_impossible_tensors_are_refused(tensors: list[tuple[str, tuple[int, ...], int, int]], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(infos(("a.weight", (32,), 0, 0), ("b.weight", (32, 2), 0, 128)))
    assert [matrix.shape for matrix in read_all(path)] == [(1, 32), (2, 32)]
    path.write_bytes(infos(*tensors))
    refused(path)


def test_lists_of_lists_without_end_are_refused(tmp_path: Path) -> None:
    key = struct.pack("<Q", 4) + b"deep" + struct.pack("<I", 9)
    path = tmp_path / "deep.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<IQ", 9, 1) * 5000)
    refused(path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    raw = made_file(tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(raw.replace(b"blk.0.attn_q.weight", b"blk.0.attn_\xff.weight"))
    refused(tmp_path / "model.gguf")


def test_weights_that_no_one_reads_as_floats_are_refused_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "integers.gguf"
    path.write_bytes(infos(("a.weight", (32,), 26, 0)))
    source = GgufSource(path)
    with pytest.raises(ModelError) as caught:
        source.read(source.tensors[0])
    sentence(caught.value, "I32")


def test_a_file_that_is_written_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check after writing would notice a writer that labels a tensor otherwise."""
    source = made.MadeSource([Tensor("a.weight", (2, 32), "F16")])
    raw, told = Recipe.format_of, iter(["F16"] * 2 + ["BF16"] * 9)
    monkeypatch.setattr(Recipe, "format_of", lambda recipe, tensor: raw(recipe, tensor) and next(told))
    with pytest.raises(BrokenPromiseError) as caught:
        write_gguf(tmp_path / "model.gguf", Recipe(source, {}), source.stored)
    sentence(caught.value, "a.weight")
