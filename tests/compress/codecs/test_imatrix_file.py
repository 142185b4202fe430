"""Importance matrices: llama.cpp's two formats, and what is none or belongs to another model."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.compress import Floats, read_imatrix, write_imatrix
from bitwright.errors import ModelError, OutputError
from bitwright.spaces import Tensor
from bitwright.testing.codec_contract import importance
from tests.compress.models.gguf.test_reader import finish
from tests.sentences import sentence

Q = Tensor("blk.0.attn_q.weight", (6, 64), "F16")
UP = Tensor("blk.0.ffn_up_exps.weight", (3, 4, 32), "F16")
BOTH = {Q.name: importance(1, 64), UP.name: importance(3, 32)}
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def refused(path: Path, *values: object) -> str:
    with pytest.raises(ModelError) as caught:
        read_imatrix(path, (Q, UP))
    return sentence(caught.value, path, *values)


def dat(*entries: tuple[str, int, Sequence[float]]) -> bytes:
    """llama.cpp's older format: sums of squares with the number of calls, then the name of the text."""
    raw = struct.pack("<i", len(entries))
    for name, n_calls, sums in entries:
        raw += struct.pack("<i", len(name)) + name.encode() + struct.pack(f"<ii{len(sums)}f", n_calls, len(sums), *sums)
    return raw + struct.pack("<ii", 10, 8) + b"text.txt"


def sums_and_counts(path: Path, tensors: dict[str, tuple[Floats, Sequence[float]]]) -> Path:
    """llama.cpp's present format as its own tool writes it."""
    writer = GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    for name, (sums, counts) in tensors.items():
        writer.add_tensor(f"{name}.in_sum2", sums)
        writer.add_tensor(f"{name}.counts", np.array(counts, dtype=np.float32).reshape(-1, 1))
    finish(writer)
    return path


@given(seed=st.integers(0, 99), scale=st.sampled_from([1e-20, 1.0, 1e20]))
@in_one_folder
def test_what_is_written_is_read(seed: int, scale: float, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    given_means = {name: (scale * importance(*values.shape, seed)).astype(np.float32) for name, values in BOTH.items()}
    write_imatrix(path, given_means, text="a text")
    found = read_imatrix(path, (UP, Q, Tensor("output.weight", (2, 64), "F16")))
    assert found.keys() == given_means.keys()
    for name, values in found.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, given_means[name])


def test_what_is_written_is_llama_cpps_format(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, BOTH, text="a text")
    reader = GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["a text"]
    assert {"imatrix.chunk_count", "imatrix.chunk_size"} <= set(reader.fields)
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}  # the fastest dimension first
    assert shapes == {f"{Q.name}.in_sum2": [64, 1], f"{Q.name}.counts": [1, 1], f"{UP.name}.in_sum2": [32, 3], f"{UP.name}.counts": [1, 3]}


def test_sums_are_divided_by_their_counts(tmp_path: Path) -> None:
    sums = np.arange(96, dtype=np.float32).reshape(3, 32)
    path = sums_and_counts(tmp_path / "imatrix.gguf", {UP.name: (sums, [4, 2, 8]), Q.name: (np.full((1, 64), 12, np.float32), [3])})
    found = read_imatrix(path, (Q, UP))
    assert np.array_equal(found[UP.name], sums / np.array([[4], [2], [8]], np.float32))
    assert (found[Q.name] == 4).all()


def test_an_expert_that_no_token_reached_gets_the_mean_of_the_others(tmp_path: Path) -> None:
    sums = np.stack([np.full(32, 6.0), np.zeros(32), np.full(32, 4.0)]).astype(np.float32)
    found = read_imatrix(sums_and_counts(tmp_path / "imatrix.gguf", {UP.name: (sums, [2, 0, 4])}), (UP,))
    assert found[UP.name][:, 0].tolist() == [3, 2, 1]


def test_a_tensor_that_no_token_reached_is_no_number_of_any_kind(tmp_path: Path) -> None:
    path = sums_and_counts(tmp_path / "imatrix.gguf", {Q.name: (np.zeros((1, 64), np.float32), [0])})
    assert not read_imatrix(path, (Q,))[Q.name].any()


def test_the_older_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    experts = np.arange(96, dtype=np.float32)
    path.write_bytes(dat((Q.name, 4, [8.0] * 64), (UP.name, 2, experts.tolist()), ("output.weight", 1, [1.0])))
    found = read_imatrix(path, (Q, UP))
    assert found.keys() == {Q.name, UP.name}
    assert np.array_equal(found[Q.name], np.full((1, 64), 2, np.float32))
    assert np.array_equal(found[UP.name], experts.reshape(3, 32) / 2)


def test_a_matrix_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, {"blk.7.attn_q.weight": importance(1, 64)}, text="")
    assert "names none" in refused(path, "make it from this very model")


@pytest.mark.parametrize("shape", [(1, 32), (1, 65), (2, 64), (1, 128)])
def test_another_number_of_channels_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, {Q.name: importance(*shape)}, text="")
    refused(path, Q.name, shape[0] * shape[1], 64)
    path.write_bytes(dat((Q.name, 1, [1.0] * (shape[0] * shape[1]))))
    refused(path, Q.name, shape[0] * shape[1], 64)


@pytest.mark.parametrize("n_experts", [1, 2, 6])
def test_another_number_of_experts_is_refused(n_experts: int, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, {UP.name: importance(n_experts, 32)}, text="")
    refused(path, UP.name, 32 * n_experts, 96)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_mean_squares_are_refused(value: float, tmp_path: Path) -> None:
    path, values = tmp_path / "imatrix.gguf", importance(1, 64)
    values[0, 5] = value
    write_imatrix(path, {Q.name: values}, text="")
    refused(path, Q.name, "finite")
    path.write_bytes(dat((Q.name, 1, values[0].tolist())))
    refused(path, Q.name, "finite")


def test_sums_without_counts_are_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "imatrix.gguf", "imatrix")
    writer.add_tensor(f"{Q.name}.in_sum2", importance(1, 64))
    finish(writer)
    refused(tmp_path / "imatrix.gguf", "counts")


def test_a_model_is_no_importance_matrix(gguf_256: Path) -> None:
    refused(gguf_256, "names none")


@pytest.mark.parametrize("name", ["missing.gguf", "."])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    refused(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GG",
        b"A text of some length, which is no matrix at all.",
        struct.pack("<i", 0),
        struct.pack("<i", -1),
        struct.pack("<ii", 2**31 - 1, -12) + bytes(64),
        struct.pack("<ii", 1, 2**31 - 1),
        dat((Q.name, 1, [1.0] * 64)).replace(struct.pack("<ii", 1, 64), struct.pack("<ii", 1, -1)),
        dat((Q.name, 1, [1.0] * 64)).replace(struct.pack("<ii", 1, 64), struct.pack("<ii", 1, 0)),
        dat(("\x7f" * 8, 1, [1.0] * 64)).replace(b"\x7f", b"\xff"),
    ],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(content)
    refused(path)


def test_a_length_that_leads_backwards_is_refused(tmp_path: Path) -> None:
    """Entries of no bytes each, as many as the file claims, would be read for hours."""
    path = tmp_path / "imatrix.dat"
    whole = dat((Q.name, 1, [0.0] * 64))
    path.write_bytes(struct.pack("<i", 9) + whole[4:-16] + struct.pack("<i", -12) + bytes(16))
    refused(path, "negative length")


@given(share=st.floats(0, 1, exclude_max=True), modern=st.booleans())
@in_one_folder
def test_a_file_cut_anywhere_is_refused(share: float, modern: bool, tmp_path: Path) -> None:
    path = tmp_path / "imatrix"
    if modern:
        write_imatrix(path, BOTH, text="a text")
        n_bytes = path.stat().st_size - 24  # the last counts are padded from 12 bytes to 32
    else:
        path.write_bytes(dat(*((name, 1, values.reshape(-1).tolist()) for name, values in BOTH.items())))
        n_bytes = path.stat().st_size - 16  # what follows the entries is not read
    path.write_bytes(path.read_bytes()[: int(share * n_bytes)])
    refused(path)


@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"GGUF\x03\0\0\0", struct.pack("<ii", 1, 4), struct.pack("<ii", 3, 0)]))
@in_one_folder
def test_any_bytes_are_refused(content: bytes, start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "imatrix"
    path.write_bytes(start + content)
    refused(path)


@pytest.mark.parametrize("name", ["file/imatrix.gguf", "folder"])
def test_a_place_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        write_imatrix(tmp_path / name, BOTH, text="")
    sentence(caught.value, tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]
