import numpy as np
import pytest

from bitwright.compress import needs_moments, rounding_named
from bitwright.compress.codecs.grid import MinimumGrid
from bitwright.compress.codecs.rounding.by_name import ROUNDING_PARTS
from bitwright.errors import UserError
from tests.sentences import sentence

ROUNDINGS = tuple(ROUNDING_PARTS.built_in)
RNG = np.random.default_rng(0)
WEIGHTS, INPUTS = RNG.normal(size=(8, 64)).astype(np.float32), (RNG.normal(size=(99, 64)) @ RNG.normal(size=(64, 64))).astype(np.float32)
MOMENTS = {"a": (INPUTS.T @ INPUTS)[None]}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_only_what_needs_moments_goes_by_them(name: str) -> None:
    channels = np.ones(64, np.float32)
    found = [
        rounding_named(name, moments).for_tensor("a").rounded(WEIGHTS, MinimumGrid(3), group=32, importance=channels) for moments in (MOMENTS, {})
    ]
    assert np.array_equal(found[0].codes, found[1].codes) != needs_moments(name)


def test_every_name_is_another_rounding() -> None:
    channels = RNG.uniform(0, 9, 64).astype(np.float32)
    found = [rounding_named(name, MOMENTS).for_tensor("a").rounded(WEIGHTS, MinimumGrid(3), group=32, importance=channels) for name in ROUNDINGS]
    assert len({(part.codes.tobytes(), part.placement.anchor.tobytes()) for part in found}) == len(ROUNDINGS)


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(UserError) as refused:
        rounding_named("awq", {})
    sentence(refused.value, "awq", *ROUNDINGS)
