"""A sweep of a streamed model: the products of one in memory to the bit, with hidden states in memory and in a file."""

from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, Room, load
from bitwright.compress.models.streaming import room
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal, SampledLabels
from bitwright.predictors.sensitivity.gradients.products import InnerProduct, SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.sweep import ORIGINAL, Products, Sweep, measure_together, operating_point
from tests.measuring import levels_of, random_tokens, space_of, uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow

MENU, TOKENS = ("Q8_0", "Q4_0"), random_tokens(6, 6)


def swept(model: Model, folder: Path, *, quantized: bool) -> tuple[Products, ...]:
    space = space_of(model, MENU)
    at = operating_point(space, uniform(space, "Q4_0")) if quantized else ORIGINAL
    asked = Sweep(FromOriginal() if quantized else SampledLabels(), at=at)
    folder.mkdir()
    with opened(model, levels_of(model, folder), space=space, tokens=TOKENS, store=folder / "a.sqlite", seed=3) as subject:
        return measure_together(subject, asked, (InnerProduct(), SquaredOutputChange()))


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", ["llama_tied", "tiny_mixtral"])
def test_products_are_those_of_the_model_in_memory(
    name: str, *, quantized: bool, in_file: bool, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = request.getfixturevalue(name)
    monkeypatch.setattr(room, "_TEXT_BYTES", 0 if in_file else 1 << 20)
    streamed = load(str(folder), room=Room(tmp_path, stream=True))
    expected = swept(load(str(folder)), tmp_path / "in memory", quantized=quantized)
    for found, known in zip(swept(streamed, tmp_path / "streamed", quantized=quantized), expected, strict=True):
        assert known.values.any()
        np.testing.assert_array_equal(found.values, known.values)
        np.testing.assert_array_equal(found.restored, known.restored)
