"""Bound on packed tensors: what was used longest ago goes, and is made again to the same bytes."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import DiskBound, GgmlCodec, PackedTensors
from bitwright.engines import LLAMA_CPP
from bitwright.spaces import Tensor
from tests.compress import made_sources as made

FORMATS = [LLAMA_CPP.format(name) for name in ("Q8_0", "Q5_0", "Q4_0", "Q4_1")]
TENSORS = tuple(Tensor(f"blk.{i}.attn_q.weight", (8, 64), "F32") for i in range(3))
SIZE = FORMATS[0].size_bytes(TENSORS[0].shape) + 32  # of the largest file, with its digest


def levels(folder: Path, n_bytes: int) -> PackedTensors:
    bound = DiskBound(folder, n_bytes, tensors=[tensor.name for tensor in TENSORS])
    return PackedTensors(folder, made.MadeSource(TENSORS), GgmlCodec(), {}, bound)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def digests(here: PackedTensors) -> list[str]:
    return [hashlib.sha256(np.array(here.packed(tensor, form)).tobytes()).hexdigest() for tensor in TENSORS for form in FORMATS]


@pytest.mark.parametrize("n_bytes", [1, SIZE, 2 * SIZE, 5 * SIZE])
def test_what_was_removed_is_made_again_to_the_same_bytes(n_bytes: int, tmp_path: Path) -> None:
    free = PackedTensors(tmp_path / "free", made.MadeSource(TENSORS), GgmlCodec(), {})
    here, expected = levels(tmp_path / "bound", n_bytes), digests(free)
    for _ in range(3):
        assert digests(here) == expected
        sizes = [path.stat().st_size for path in (tmp_path / "bound").iterdir()]
        assert sum(sizes) <= n_bytes or len(sizes) == 1
    assert len(names(tmp_path / "free")) == 12 > len(names(tmp_path / "bound"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    here, form = levels(tmp_path, 2 * SIZE), FORMATS[0]
    here.packed(TENSORS[0], form)
    here.packed(TENSORS[1], form)
    here.packed(TENSORS[0], form)
    here.packed(TENSORS[2], form)
    assert names(tmp_path) == {f"{TENSORS[0].name}.Q8_0", f"{TENSORS[2].name}.Q8_0"}


def test_bytes_that_are_read_stay_readable(tmp_path: Path) -> None:
    here = levels(tmp_path, 1)
    first = here.packed(TENSORS[0], FORMATS[0])
    here.packed(TENSORS[1], FORMATS[0])
    assert names(tmp_path) == {f"{TENSORS[1].name}.Q8_0"}
    assert np.array_equal(first, here.encode(TENSORS[0], FORMATS[0]))


def test_files_of_an_earlier_process_count_and_go_by_their_age(tmp_path: Path) -> None:
    before = levels(tmp_path, 10 * SIZE)
    for age, tensor in enumerate(TENSORS):
        before.packed(tensor, FORMATS[0])
        os.utime(tmp_path / f"{tensor.name}.Q8_0", (1e9 - age, 1e9 - age))
    levels(tmp_path, 3 * SIZE).packed(TENSORS[0], FORMATS[1])
    assert names(tmp_path) == {f"{TENSORS[0].name}.Q8_0", f"{TENSORS[1].name}.Q8_0", f"{TENSORS[0].name}.Q5_0"}


def test_files_that_are_no_packed_tensors_are_left_alone(tmp_path: Path) -> None:
    for name in ("mine", "notes.txt", f"{TENSORS[0].name}"):
        (tmp_path / name).write_bytes(bytes(10 * SIZE))
    here = levels(tmp_path, SIZE)
    digests(here)
    here.keep({})
    assert names(tmp_path) == {"mine", "notes.txt", TENSORS[0].name}


def test_a_plan_s_tensors_alone_are_kept(tmp_path: Path) -> None:
    here = levels(tmp_path, 100 * SIZE)
    digests(here)
    here.keep({tensor.name: "Q4_0" for tensor in TENSORS[:2]})
    assert names(tmp_path) == {f"{tensor.name}.Q4_0" for tensor in TENSORS[:2]}


def test_a_folder_of_sampled_rows_goes_with_them(tmp_path: Path) -> None:
    for folder, others in (("rows-1", ()), ("rows-2", ("notes.txt",))):
        for name in (f"{TENSORS[0].name}.Q8_0", *others):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(bytes(SIZE))
    levels(tmp_path, 100 * SIZE).keep({})
    assert names(tmp_path) == {"rows-2"}
    assert names(tmp_path / "rows-2") == {"notes.txt"}
