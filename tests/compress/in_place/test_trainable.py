"""Trainable matrices: the weights of the codec, their gradients, and the bytes of changed numbers."""

import numpy as np
import pytest
import torch

from bitwright.compress import TrainableMatrix, integer_codec, is_trainable
from bitwright.spaces import NATIVE_FORMATS, Format
from bitwright.testing.codec_contract import normal, unknown

BY_NAME = {form.name: form for form in NATIVE_FORMATS}
SOME = ("INT1_G64", "INT2_G32", "INT3_ROW", "INT4_G64", "INT2_2OF4", "INT3_S50", "INT4_1OF4", "INT1_R8", "INT2_R16", "SVD_R8")
SHAPE = (24, 100)  # the last group of a row is short


def made(form: Format) -> tuple[TrainableMatrix, np.ndarray]:
    packed = integer_codec().encode(normal(*SHAPE), form, unknown(SHAPE[1]))
    return TrainableMatrix(packed, form, SHAPE), packed


@pytest.mark.parametrize("name", SOME)
def test_untouched_numbers_are_the_codecs_weights_and_bytes(name: str) -> None:
    matrix, packed = made(BY_NAME[name])
    decoded = integer_codec().decode(packed, BY_NAME[name], SHAPE)
    np.testing.assert_allclose(matrix.weights().detach().numpy(), decoded, rtol=1e-5, atol=1e-6)
    assert np.array_equal(matrix.packed(), packed)


@pytest.mark.parametrize("name", SOME)
def test_a_step_along_the_gradient_lowers_the_error_and_is_stored(name: str) -> None:
    (matrix, packed), form, weights = made(BY_NAME[name]), BY_NAME[name], torch.from_numpy(1.2 * normal(*SHAPE))
    before = float(((matrix.weights() - weights) ** 2).sum().detach())
    optimizer = torch.optim.Adam([{"params": [number], "lr": 0.003 * float(number.detach().std())} for number in matrix.numbers])
    for _ in range(40):
        optimizer.zero_grad()
        ((matrix.weights() - weights) ** 2).sum().backward()
        optimizer.step()
    changed = matrix.packed()
    assert changed.shape == packed.shape
    assert not np.array_equal(changed, packed)
    stored = integer_codec().decode(changed, form, SHAPE)
    np.testing.assert_allclose(stored, matrix.weights().detach().numpy(), atol=0.03)
    assert float(((torch.from_numpy(stored) - weights) ** 2).sum()) < before
    assert np.array_equal(stored == 0, integer_codec().decode(packed, form, SHAPE) == 0) or "OF" not in name


def test_floats_have_nothing_beside_codes() -> None:
    assert not is_trainable(BY_NAME["BF16"])
    assert not is_trainable(BY_NAME["BF16_2OF4"])
    with pytest.raises(ValueError, match="BF16"):
        TrainableMatrix(np.zeros(8, dtype=np.uint8), BY_NAME["BF16"], (2, 2))
