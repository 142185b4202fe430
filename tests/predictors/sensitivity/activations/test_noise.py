from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bitwright.compress import Model, PackedTensors, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations.noise import noise_coefficients, noise_table, noisy
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class TestNoiseTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        errors = measure_distortion(space, levels, progress=Silent()).plain
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return noise_table(noise_coefficients(subject, (0.05, 0.1)), errors)


def test_noise_has_the_norm_that_is_asked_for(mixtral: Model, tmp_path: Path) -> None:
    space = space_of(mixtral, ("Q4_0",))
    with opened(mixtral, levels_of(mixtral, tmp_path), space=space, tokens=random_tokens(2, 6), store=tmp_path / "a.sqlite") as subject:
        changes = []
        for u, stream in ((0, 0), (0, 1), (3, 0), (3, 0)):
            for name, made in noisy(subject, u, t=0.125, stream=stream).items():
                tensor = next(tensor for tensor in mixtral.tensors if tensor.name == name)
                original = subject.levels.source.read(tensor)
                changes.append(made() - original)
                assert np.linalg.norm(changes[-1]) / np.linalg.norm(original) == pytest.approx(0.125, rel=1e-4)
    assert not np.allclose(changes[0], changes[1])
    np.testing.assert_array_equal(changes[2], changes[3])


def test_the_coefficient_is_the_least_squares_slope(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, asked = (0.1, 0.2, 0.4), []

    @contextmanager
    def fake(_: Any) -> Any:
        def with_weights(name: str, weights: Any) -> float:
            asked.append(name)
            _, u, t, _ = name.split("/")
            return (int(u) + 1) * float(t) ** 2 + (0.01 if t == "0.2" else 0)

        yield SimpleNamespace(with_weights=with_weights)

    monkeypatch.setattr("bitwright.predictors.sensitivity.activations.noise.open_divergence", fake)
    space = space_of(tied, ("Q4_0",))
    with opened(tied, levels_of(tied, tmp_path), space=space, tokens=random_tokens(2, 6), store=tmp_path / "a.sqlite") as subject:
        found = noise_coefficients(subject, levels)
    squares = np.square(levels)
    for u, coefficient in enumerate(found):
        values = (u + 1) * squares + [0, 0.01, 0]
        assert coefficient == pytest.approx(np.linalg.lstsq(squares[:, None], values, rcond=None)[0][0])
    assert len(set(asked)) == len(space.units) * len(levels)


def test_the_table_is_the_coefficient_times_the_relative_error() -> None:
    errors = np.array([[0.0, 0.5], [np.nan, 2.0], [1.0, 1.0]])
    np.testing.assert_array_equal(noise_table(np.array([2.0, 3.0, -1.0]), errors), [[0.0, 1.0], [np.nan, 6.0], [0.0, 0.0]])
