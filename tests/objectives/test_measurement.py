import math

import pytest

from bitwright.objectives import Measurement
from tests.measuring import measurement_of


def measurement(*nats: float) -> Measurement:
    return measurement_of((0,), nats)


def test_mean_and_standard_error_over_sequences() -> None:
    found = measurement(1.0, 2.0, 6.0)
    assert found.nats_per_token == 3.0
    assert found.standard_error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))


def test_one_sequence_says_nothing_of_the_error() -> None:
    assert measurement(1.0).standard_error == math.inf
