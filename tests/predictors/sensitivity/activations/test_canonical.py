from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import block_diag

from bitwright.compress import Levels, Model, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations.canonical import canonical_scores, mean_canonical_correlation
from bitwright.predictors.sensitivity.ranked_scores import scored_table
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class TestScoredTable(TableContract):
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        distortion = measure_distortion(space, levels, progress=Silent())
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return scored_table(canonical_scores(subject), space, relative_error=distortion.plain)


def joint(cross: np.ndarray) -> np.ndarray:
    """Covariance of x and y, each white, with covariance `cross` between them."""
    return np.block([[np.eye(len(cross)), cross], [cross.T, np.eye(len(cross))]])


def test_by_hand() -> None:
    assert mean_canonical_correlation(joint(np.diag([0.8, 0.1]))) == pytest.approx(0.45, abs=1e-5)
    assert mean_canonical_correlation(joint(np.zeros((3, 3)))) == pytest.approx(0, abs=1e-5)
    assert mean_canonical_correlation(joint(np.eye(3))) == pytest.approx(1, abs=1e-5)


@given(st.integers(0, 1000))
def test_linear_maps_of_either_side_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, _, v = np.linalg.svd(rng.standard_normal((3, 3)))
    white = joint(u @ np.diag([0.9, 0.5, 0.1]) @ v)
    maps = block_diag(*(u @ np.diag(rng.uniform(0.2, 5, 3)) @ v for _ in range(2)))
    assert mean_canonical_correlation(maps @ white @ maps.T) == pytest.approx(0.5, abs=1e-3)


def test_blocks_in_portions_are_the_same(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, tokens, found = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(40, 12), []
    for i, bound in enumerate((1 << 30, 1)):
        monkeypatch.setattr("bitwright.predictors.sensitivity.block_hooks.BOUND_BYTES", bound)
        with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / f"{i}") as subject:
            found.append(canonical_scores(subject))
    np.testing.assert_array_equal(*found)
    assert len({*found[0]}) == 2  # one for each block
    before, after, _ = (state.flatten(0, 1) for state in tied.module(torch.from_numpy(tokens.ids), output_hidden_states=True).hidden_states)
    expected = -mean_canonical_correlation(np.cov(torch.cat([before, after], dim=1).T.double(), bias=True))
    np.testing.assert_allclose(found[0][[unit.layer == 0 for unit in space.units]], expected, rtol=1e-4)
    assert -0.999 < expected < -0.1
    assert found[0][0] == found[0].max()
