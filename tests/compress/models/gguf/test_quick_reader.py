"""The quick reader of GGUF files returns what gguf's own returns, and transformers reads by it."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFReader

from bitwright.compress.models.gguf.quick_reader import QuickReader, quick_reading


def test_metadata_and_tensors_are_those_of_ggufs_reader(gguf_quantized: Path) -> None:
    quick, plain = QuickReader(gguf_quantized), GGUFReader(gguf_quantized)
    assert {key: field.contents() for key, field in quick.fields.items()} == {key: field.contents() for key, field in plain.fields.items()}
    assert [(one.name, one.shape.tolist(), one.data_offset) for one in quick.tensors] == [
        (one.name, one.shape.tolist(), one.data_offset) for one in plain.tensors
    ]
    for one, other in zip(quick.tensors, plain.tensors, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_ggufs_reader_is_put_back() -> None:
    with quick_reading():
        assert gguf.GGUFReader is QuickReader
    assert gguf.GGUFReader is GGUFReader
