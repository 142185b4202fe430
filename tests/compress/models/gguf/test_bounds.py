"""Counts in the head of a GGUF file are held to the bytes that there are before anything is made of them."""

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from bitwright.compress import GgufSource
from bitwright.engines import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.errors import ModelError
from tests.sentences import sentence

KEY = struct.pack("<Q", 3) + b"key"


def head(n_tensors: int, n_entries: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_entries) + rest


def array(kind: GGUFValueType, length: int, rest: bytes = b"") -> bytes:
    return KEY + struct.pack("<IIQ", GGUFValueType.ARRAY, kind, length) + rest


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (head(0, 1, array(GGUFValueType.UINT8, 10**12, bytes(100))), "1,000,000,000,000 entries"),
        (head(0, 1, array(GGUFValueType.STRING, 10**12, bytes(100))), "1,000,000,000,000 entries"),
        (head(0, 1, array(GGUFValueType.ARRAY, 2, bytes(100))), "array of arrays"),
        (head(0, 1, struct.pack("<Q", 2**63) + bytes(20)), "beyond its end"),
        (head(0, 10**12, bytes(100)), "beyond its end"),
        (head(10**12, 0, bytes(100)), "beyond its end"),
        (head(1, 0, KEY + struct.pack("<IQIQ", 1, 10**12, 0, 0)), "beyond its end"),
        (head(1, 0, KEY + struct.pack("<I", 10**6) + bytes(100)), "1,000,000 dimensions"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "byte order"),
        (b"", "empty"),
    ],
)
def test_counts_beyond_the_end_are_refused_at_once(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        GgufSource(path)
    sentence(caught.value, path, why)
    assert time.monotonic() - started < 2


def test_what_says_how_another_file_was_quantized_is_not_carried_over(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_string("quantize.imatrix.file", "somebody's.dat")
    writer.add_string("general.name", "a model")
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = GgufSource(tmp_path / "model.gguf")
    write_gguf(tmp_path / "copy.gguf", Recipe(source, {}), lambda tensor: source.stored(tensor))
    keys = GGUFReader(tmp_path / "copy.gguf").fields
    assert "general.name" in keys
    assert "quantize.imatrix.file" not in keys
