"""A split GGUF file is read as one, and a part that is missing or of another file is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from bitwright.compress import GgufSource
from bitwright.compress.models.gguf.split_files import part_name
from bitwright.errors import ModelError
from tests.sentences import sentence

N_PARTS = 3


def split(folder: Path, *, n_tensors: int = N_PARTS) -> Path:
    """Write a file of one tensor in each part; the first part."""
    folder.mkdir()
    writer = GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=1)
    writer.add_context_length(64)
    for i in range(n_tensors):
        writer.add_tensor(f"blk.{i}.attn_q.weight", np.full((4, 32), i, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / part_name("model", 0, n_tensors)


def test_all_parts_are_one_source(tmp_path: Path) -> None:
    source = GgufSource(split(tmp_path / "one"))
    assert [tensor.name for tensor in source.tensors] == [f"blk.{i}.attn_q.weight" for i in range(N_PARTS)]
    assert [float(source.read(tensor).mean()) for tensor in source.tensors] == [0.0, 1.0, 2.0]
    assert [entry.key for entry in source.metadata if entry.key != "general.alignment"] == ["general.architecture", "llama.context_length"]


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        GgufSource(path)
    sentence(caught.value, *words)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    first = split(tmp_path / "one")
    (first.parent / part_name("model", 1, N_PARTS)).unlink()
    refused(first, "model-00002-of-00003.gguf is missing", "1 of 3")


def test_another_part_than_the_first_is_refused(tmp_path: Path) -> None:
    first = split(tmp_path / "one")
    refused(first.with_name(part_name("model", 2, N_PARTS)), f"give {first}")


def test_a_part_of_another_file_is_refused(tmp_path: Path) -> None:
    first, other = split(tmp_path / "one"), split(tmp_path / "other", n_tensors=4)
    shutil.copy(other.with_name(part_name("model", 1, 4)), first.with_name(part_name("model", 1, N_PARTS)))
    refused(first, "split.count 4 where 3 belongs")
