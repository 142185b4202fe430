"""Vectors by their values: in any order, and up to the changes that llama.cpp's converter makes."""

import numpy as np
import pytest
import torch

from bitwright.compress.models.gguf.value_matching import Values

HAS = torch.tensor([0.5, -2.0, 3.0, 100.0])  # exp(100) is beyond float32
VALUES = Values({"model.layers.1.a": HAS})


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x[::-1], lambda x: x + 1, lambda x: -x, lambda x: x[:2]])
def test_changed_values_are_found_in_their_block_alone(change: object) -> None:
    assert callable(change)
    found = np.ascontiguousarray(change(HAS.numpy()))
    assert VALUES.hold("blk.1.a", found)
    assert not VALUES.hold("blk.0.a", found)


@pytest.mark.parametrize("other", [[0.5, -2.0, 3.0, 99.0], [0.5, 7.0], [0.5, -2.0, 3.0, 100.0, 1.0]])
def test_other_values_are_not(other: list[float]) -> None:
    assert not VALUES.hold("blk.1.a", np.array(other, dtype=np.float32))
