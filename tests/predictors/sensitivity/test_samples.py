import numpy as np
import pytest

from bitwright.errors import UserError
from bitwright.predictors.sensitivity.samples import require_samples
from tests.sentences import sentence


def test_enough_are_enough() -> None:
    require_samples(np.zeros((3, 2), dtype=np.int64), 3, "This one")


def test_too_few_are_refused() -> None:
    with pytest.raises(UserError) as refused:
        require_samples(np.zeros((3, 2), dtype=np.int64), 4, "This one")
    sentence(refused.value, "This one", "at least 4", "there are 3", "ridge")
