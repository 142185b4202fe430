"""Levels: packed once, kept whole or not at all, and the source's own bytes where the format is the source's."""

import errno
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.compress import (
    Bytes,
    Codec,
    DecodeOnlyCodec,
    DiskBound,
    Floats,
    GgmlCodec,
    GgufSource,
    PackedTensors,
    integer_codec,
    matrix_shape,
    packed_codec,
    pieces_of,
)
from bitwright.compress.codecs import packed_cache
from bitwright.engines import LLAMA_CPP, NATIVE
from bitwright.engines.compressed_tensors.target import TRANSFORMERS
from bitwright.errors import ModelError, OutputError, RunError
from bitwright.spaces import Absence, Format, Target, Tensor
from bitwright.testing.codec_contract import importance
from tests.compress import made_sources as made
from tests.sentences import sentence

Q4_0, Q8_0, F16, F32 = (LLAMA_CPP.format(name) for name in ("Q4_0", "Q8_0", "F16", "F32"))
TENSOR = Tensor("blk.0.attn_q.weight", (6, 64), "F32")
EXPERTS = Tensor("blk.0.ffn_up_exps.weight", (3, 2, 64), "F32")


class Counting(Codec):
    """libggml, and how often it was asked to pack."""

    def __init__(self) -> None:
        self.n_packed = 0

    def serves(self, form: Format) -> bool:
        return GgmlCodec().serves(form)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        self.n_packed += 1
        return GgmlCodec().encode(weights, form, importance)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        return GgmlCodec().decode(packed, form, shape)


def levels(folder: Path, *tensors: Tensor, codec: Codec | None = None, channels: dict[str, Floats] | None = None) -> PackedTensors:
    return PackedTensors(folder, made.MadeSource(tensors or (TENSOR,)), codec or Counting(), channels or {})


def test_a_tensor_is_packed_once_and_then_read_from_disk(tmp_path: Path) -> None:
    codec = Counting()
    here = levels(tmp_path / "levels", codec=codec)
    first = np.array(here.packed(TENSOR, Q4_0))
    assert codec.n_packed == 1
    later = levels(tmp_path / "levels", codec=codec)
    assert np.array_equal(here.packed(TENSOR, Q4_0), first)
    assert np.array_equal(later.packed(TENSOR, Q4_0), first)
    assert codec.n_packed == 1
    assert np.array_equal(GgmlCodec().encode(here.source.read(TENSOR), Q4_0, np.empty((0, 64), np.float32)), first)
    assert [file.name for file in (tmp_path / "levels").iterdir()] == ["blk.0.attn_q.weight.Q4_0"]


@pytest.mark.parametrize("damage", ["first bit", "digest", "cut", "longer", "another level", "empty"])
def test_a_level_that_is_not_as_it_was_packed_is_packed_again(damage: str, tmp_path: Path) -> None:
    codec = Counting()
    here = levels(tmp_path, codec=codec)
    first, _ = bytes(here.packed(TENSOR, Q4_0)), here.packed(TENSOR, Q8_0)
    path, whole = tmp_path / f"{TENSOR.name}.Q4_0", (tmp_path / f"{TENSOR.name}.Q4_0").read_bytes()
    changed = {
        "first bit": bytes([whole[0] ^ 1]) + whole[1:],
        "digest": whole[:-1] + bytes([whole[-1] ^ 128]),
        "cut": whole[:-18],
        "longer": whole + b"\0",
        "another level": (tmp_path / f"{TENSOR.name}.Q8_0").read_bytes(),
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    assert bytes(here.packed(TENSOR, Q4_0)) == first
    assert codec.n_packed == 3
    assert path.read_bytes() == whole
    assert here.weights(TENSOR, Q8_0).shape == (6, 64)


def test_a_level_that_cannot_be_made_again_is_refused(tmp_path: Path) -> None:
    levels(tmp_path).packed(TENSOR, Q4_0)
    path = tmp_path / f"{TENSOR.name}.Q4_0"
    kept = levels(tmp_path, codec=DecodeOnlyCodec(GgmlCodec(), tmp_path))
    assert kept.packed(TENSOR, Q4_0).nbytes == Q4_0.size_bytes(TENSOR.shape)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError) as caught:
        kept.packed(TENSOR, Q4_0)
    sentence(caught.value, tmp_path, "--out")


@pytest.mark.parametrize("form", [*(form.name for form in LLAMA_CPP.formats), "F32"])
def test_bytes_of_another_size_are_never_read_by_their_place(form: str) -> None:
    packed = np.zeros(LLAMA_CPP.format(form).size_bytes((4, 256)), dtype=np.uint8)
    for wrong in (packed[:-1], packed[: packed.size // 2], np.append(packed, packed[:4]), packed[:0]):
        with pytest.raises(ModelError) as caught:
            GgmlCodec().decode(wrong, LLAMA_CPP.format(form), (4, 256))
        sentence(caught.value, form)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "target"), [(integer_codec(), NATIVE), (packed_codec(), TRANSFORMERS)], ids=["integers", "packed"])
def test_bytes_of_another_size_are_refused_by_every_codec(codec: Codec, target: Target) -> None:
    weights = np.random.default_rng(0).normal(size=(32, 128)).astype(np.float32)
    for form in (form for form in target.formats if form.fits(weights.shape) and not isinstance(form, Absence)):
        packed = codec.encode(weights, form, importance(1, 128))
        assert codec.decode(packed, form, weights.shape).shape == weights.shape
        for wrong in (packed[:-1], packed[: packed.size // 2], np.append(packed, packed[:32])):
            with pytest.raises(ModelError) as caught:
                codec.decode(wrong, form, weights.shape)
            sentence(caught.value, "bytes")


@pytest.mark.parametrize("name", ["INT4_G32", "INT3_2OF4", "INT4_S50", "INT2_R8", "SVD_R16"])
def test_some_rows_are_those_of_the_whole(name: str, tmp_path: Path) -> None:
    tensor, form = Tensor("blk.0.attn_q.weight", (40, 64), "F32"), NATIVE.format(name)
    here = PackedTensors(tmp_path, made.MadeSource([tensor]), integer_codec(), {})
    whole = here.weights(tensor, form)
    assert np.array_equal(here.rows(tensor, form, start=5, stop=17), whole[5:17])
    assert np.array_equal(here.some_rows(tensor, form, np.array([3, 39, 0])), whole[[3, 39, 0]])


def test_encode_gives_the_same_bytes_and_keeps_nothing(tmp_path: Path) -> None:
    here = levels(tmp_path / "levels")
    made_now = here.encode(TENSOR, Q4_0)
    assert not (tmp_path / "levels").exists()
    assert np.array_equal(made_now, here.packed(TENSOR, Q4_0))


def test_formats_and_tensors_do_not_mix(tmp_path: Path) -> None:
    other = Tensor("blk.1.attn_q.weight", TENSOR.shape, "F32")
    here = levels(tmp_path, TENSOR, other)
    packed = [here.packed(tensor, form) for tensor in (TENSOR, other) for form in (Q4_0, Q8_0, F16)]
    assert len({bytes(each) for each in packed}) == 6
    assert [each.nbytes for each in packed] == 2 * [form.size_bytes(TENSOR.shape) for form in (Q4_0, Q8_0, F16)]


def test_the_stored_format_is_the_sources_own_bytes(gguf_quantized: Path, tmp_path: Path) -> None:
    source, codec = GgufSource(gguf_quantized), Counting()
    here = PackedTensors(tmp_path / "levels", source, codec, {})
    for tensor in source.tensors:
        form = LLAMA_CPP.format(tensor.stored)
        assert np.shares_memory(here.packed(tensor, form), source.stored(tensor))
        assert np.shares_memory(here.encode(tensor, form), source.stored(tensor))
        assert np.array_equal(here.weights(tensor, form), source.read(tensor))
    assert codec.n_packed == 0
    assert not (tmp_path / "levels").exists()


class Telling(Counting):
    """Notes of which expert it is told to pack what."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int, int]] = []
        self.of = ("", -1)

    def for_tensor(self, tensor: str, expert: int = 0) -> "Telling":
        self.of = (tensor, expert)
        return self

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        self.told.append((*self.of, len(weights)))
        return super().encode(weights, form, importance)


def test_a_stack_is_packed_expert_by_expert(tmp_path: Path) -> None:
    codec = Telling()
    here = levels(tmp_path, TENSOR, EXPERTS, codec=codec)
    packed = here.encode(EXPERTS, Q4_0)
    assert codec.told == [(EXPERTS.name, expert, 2) for expert in range(3)]
    assert np.array_equal(packed, GgmlCodec().encode(here.source.read(EXPERTS), Q4_0, here.importance_of(EXPERTS)))


def test_importance_is_that_of_the_tensor(tmp_path: Path) -> None:
    channels = {TENSOR.name: importance(1, 64), EXPERTS.name: importance(3, 64)}
    here = levels(tmp_path, TENSOR, EXPERTS, channels=channels)
    plain = levels(tmp_path / "plain", TENSOR, EXPERTS)
    for tensor in (TENSOR, EXPERTS):
        assert here.knows_importance(tensor)
        assert not plain.knows_importance(tensor)
        assert plain.importance_of(tensor).shape == (0, 64)
        parts = np.split(here.source.read(tensor), len(channels[tensor.name]))
        expected = [GgmlCodec().encode(part, Q4_0, row) for part, row in zip(parts, channels[tensor.name][:, None], strict=True)]
        assert np.array_equal(here.packed(tensor, Q4_0), np.concatenate(expected))
        assert not np.array_equal(plain.packed(tensor, Q4_0), here.packed(tensor, Q4_0))


@given(start=st.integers(0, 5), length=st.integers(1, 6), wanted=st.lists(st.integers(0, 5), min_size=1, max_size=9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_some_rows_are_rows_of_the_whole(start: int, length: int, wanted: list[int], tmp_path: Path) -> None:
    here = levels(tmp_path, TENSOR, EXPERTS)
    for tensor in (TENSOR, EXPERTS):
        for form in (Q4_0, F32):
            whole = here.weights(tensor, form)
            stop = min(start + length, 6)
            assert (whole.shape, whole.dtype) == (matrix_shape(tensor), np.float32)
            assert np.array_equal(here.rows(tensor, form, start=start, stop=stop), whole[start:stop])
            assert np.array_equal(here.some_rows(tensor, form, np.array(wanted)), whole[wanted])


@pytest.mark.parametrize("known", [False, True])
def test_rows_are_quantized_to_the_bytes_that_they_have_in_the_whole(known: bool, tmp_path: Path) -> None:
    channels = {TENSOR.name: importance(1, 64), EXPERTS.name: importance(3, 64)} if known else {}
    here = levels(tmp_path / "here", TENSOR, EXPERTS, channels=channels)
    elsewhere = levels(tmp_path / "elsewhere", TENSOR, EXPERTS, codec=DecodeOnlyCodec(GgmlCodec(), tmp_path), channels=channels)
    for tensor, cuts in ((TENSOR, [0, 1, 4, 6]), (EXPERTS, [0, 2, 3, 4, 6])):
        pieces = [here.encode_rows(tensor, Q4_0, start=start, stop=stop) for start, stop in pairwise(cuts)]
        assert np.array_equal(np.concatenate(pieces), here.encode(tensor, Q4_0))
        assert not elsewhere.has(tensor, Q4_0)
        elsewhere.put(tensor, Q4_0, np.concatenate(pieces))
        assert elsewhere.has(tensor, Q4_0)
        assert np.array_equal(elsewhere.packed(tensor, Q4_0), here.packed(tensor, Q4_0))
    assert elsewhere.has(TENSOR, F32)  # as it is stored


@pytest.mark.parametrize("shape", [(5, 64), (3, 5, 64), (1, 64), (64,)])
@pytest.mark.parametrize("n_weights", [1, 2 * 64, 5 * 64, 1 << 20])
def test_every_row_is_in_one_piece(shape: tuple[int, ...], n_weights: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_cache, "PIECE_WEIGHTS", n_weights)
    pieces = pieces_of(Tensor("blk.0.attn_q.weight", shape, "F32"))
    n_rows = shape[-2] if len(shape) > 1 else 1
    assert [row for start, stop in pieces for row in range(start, stop)] == [*range(int(np.prod(shape[:-1])))]
    assert all(start // n_rows == (stop - 1) // n_rows for start, stop in pieces)
    assert max(stop - start for start, stop in pieces) == min(n_rows, max(1, n_weights // 64))


class ByRows(made.MadeSource):
    """Source that reads some rows of a matrix, and never all of them."""

    reads_rows = True

    def read(self, tensor: Tensor) -> Floats:
        raise AssertionError(f"all of {tensor.name} was read")

    def some_rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        assert (stop - start) * tensor.shape[-1] <= 2 * 64
        return super().read(tensor)[start:stop]


def test_a_matrix_is_quantized_in_pieces_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = levels(tmp_path, TENSOR, channels={TENSOR.name: importance(1, 64)})
    monkeypatch.setattr(packed_cache, "PIECE_WEIGHTS", 2 * 64)
    bound = DiskBound(tmp_path, 1 << 20, tensors=[TENSOR.name])
    pieces = PackedTensors(tmp_path, ByRows((TENSOR,)), GgmlCodec(), whole.importance, bound)
    for form in (Q4_0, F16):
        assert np.array_equal(pieces.encode(TENSOR, form), whole.encode(TENSOR, form))
    for name in ("W4_G32", "W3_G32", "W8_ROW"):  # whose layers take more bytes than their rows
        form, rows, at_once = TRANSFORMERS.format(name), ByRows((TENSOR,)), made.MadeSource((TENSOR,))
        packed = (PackedTensors(tmp_path / name, source, packed_codec(), whole.importance, bound) for source in (rows, at_once))
        assert np.array_equal(*(tensors.encode(TENSOR, form) for tensors in packed))


def test_shapes_are_folded_into_rows() -> None:
    assert matrix_shape(EXPERTS) == (6, 64)
    assert matrix_shape(Tensor("a", (64,), "F32")) == (1, 64)


def failing_sync(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The disk says of what was written, only when it is to be kept, that it could not be."""

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr("bitwright.whole_files.os.fsync", fail)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_pack_leaves_no_half_file(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        failing_sync(patched, error)
        with pytest.raises(type(error)):
            levels(tmp_path).packed(TENSOR, Q4_0)
    assert list(tmp_path.iterdir()) == []
    assert levels(tmp_path).packed(TENSOR, Q4_0).nbytes == Q4_0.size_bytes(TENSOR.shape)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError("384 requested and 12 written")])
def test_a_full_disk_is_told_and_leaves_no_half_file(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_sync(monkeypatch, error)
    with pytest.raises(OutputError) as caught:
        levels(tmp_path / "levels").packed(TENSOR, Q4_0)
    sentence(caught.value, tmp_path / "levels", error.strerror or error)
    assert list((tmp_path / "levels").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/levels"])
def test_a_folder_that_cannot_be_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(OutputError) as caught:
        levels(tmp_path / name).packed(TENSOR, Q4_0)
    sentence(caught.value, tmp_path / name)


def test_a_codec_that_fails_keeps_nothing(tmp_path: Path) -> None:
    class Failing(Counting):
        def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
            raise ValueError("broken codec")

    with pytest.raises(ValueError, match="broken codec"):
        levels(tmp_path, codec=Failing()).packed(TENSOR, Q4_0)
    assert list(tmp_path.iterdir()) == []
