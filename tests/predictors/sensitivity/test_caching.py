from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from bitwright.compress import Model
from bitwright.predictors.sensitivity.caching import cached
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


def test_a_cached_result_is_not_computed_again(tied: Model, tmp_path: Path) -> None:
    make = Mock(side_effect=[np.array([1.5, np.nan])])
    for _ in range(2):
        with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=random_tokens(2, 6), store=tmp_path / "a") as subject:
            np.testing.assert_array_equal(cached(subject, "mine", make), [1.5, np.nan])
    make.assert_called_once()


@pytest.mark.parametrize("change", ["name", "formats", "offered", "tokens", "shape", "seed"])
def test_a_result_that_could_differ_is_computed_again(tied: Model, tmp_path: Path, change: str) -> None:
    space, tokens = space_of(tied, ("Q8_0", "Q4_0")), random_tokens(2, 6)
    fewer = space.offered.copy()
    fewer[0, np.flatnonzero(fewer[0])[0]] = False
    spaces = {"formats": space_of(tied, ("Q8_0", "Q4_1")), "offered": space.narrowed(fewer)}
    texts = {"tokens": random_tokens(2, 6, seed=1), "shape": random_tokens(3, 4)}
    for i in range(2):
        other = {"space": spaces.get(change, space), "tokens": texts.get(change, tokens), "seed": int(change == "seed")} if i else {}
        with opened(tied, levels_of(tied, tmp_path), **({"space": space, "tokens": tokens} | other), store=tmp_path / "a") as subject:
            value = cached(subject, "other" if change == "name" and i else "mine", lambda i=i: np.array(float(i)))
        assert value == i
