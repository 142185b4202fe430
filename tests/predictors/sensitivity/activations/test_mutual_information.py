from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import Model, PackedTensors, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations import mutual_information
from bitwright.predictors.sensitivity.activations.mutual_information import N_CLASSES, LabelledOutputs, information_scores
from bitwright.predictors.sensitivity.ranked_scores import scored_table
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class TestScoredTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        distortion = measure_distortion(space, levels, progress=Silent())
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return scored_table(information_scores(subject), space, relative_error=distortion.plain)


def information(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Return the mutual information, collected in two batches."""
    outputs = LabelledOutputs(vectors.shape[1], torch.device("cpu"))
    for part in (slice(None, 7), slice(7, None)):
        outputs.add(torch.from_numpy(vectors[part]), torch.from_numpy(labels[part]))
    return outputs.information()


def test_by_hand() -> None:
    """Classes at ±m with deviation 1 within: the variance is 1 within and 1 + m² as a whole."""
    labels = np.repeat([3, 9], 20)
    within = np.tile([1.0, -1.0], 20)
    for m in (0.0, 0.5, 2.0):
        vectors = np.stack([within + np.where(labels == 3, m, -m), within * np.repeat([1, -1], 20)], axis=1)
        assert information(vectors, labels) == pytest.approx(0.5 * np.log(1 + m**2), abs=1e-4)


def test_the_width_of_a_class_counts_by_its_share() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    vectors = np.where(labels == 1, 4.0, 0.0)[:, None] + np.tile([1.0, -1.0], 20)[:, None]
    assert information(vectors, labels) == pytest.approx(0.5 * np.log(1 + 16 * 0.75 * 0.25), abs=1e-4)


@given(st.integers(0, 1000))
def test_linear_maps_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, vectors = rng.integers(0, 4, 60), rng.standard_normal((60, 3))
    vectors[:, 0] += labels
    left, _, right = np.linalg.svd(rng.standard_normal((3, 3)))
    mapped = vectors @ (left @ np.diag(rng.uniform(0.3, 3, 3)) @ right) + rng.standard_normal(3)
    assert information(mapped, labels) == pytest.approx(information(vectors, labels), abs=1e-3)


def test_unrelated_labels_tell_next_to_nothing_and_as_much_as_is_stated() -> None:
    rng = np.random.default_rng(0)
    found = [information(rng.standard_normal((4000, 8)), rng.integers(0, N_CLASSES, 4000)) for _ in range(10)]
    assert np.mean(found) == pytest.approx(8 * (N_CLASSES - 1) / 2 / 4000, rel=0.1)


def test_classes_are_the_most_frequent_predictions(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = np.array([[7, 7, 9], [5, 9, 7], [5, 300, 301]])

    def forward(*_: object) -> list[tuple[np.ndarray, torch.Tensor]]:
        return [(row, torch.nn.functional.one_hot(torch.from_numpy(row), 384)) for row in predicted]

    monkeypatch.setattr(mutual_information, "forward", forward)
    monkeypatch.setattr(mutual_information, "N_CLASSES", 4)
    with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=random_tokens(3, 3), store=tmp_path / "a") as subject:
        classes = mutual_information._predicted_classes(subject)
    assert classes.ravel().tolist() == [1, 1, 3, 2, 3, 1, 2, 0, 0]  # 7, then 5 before 9, of which there are equally many


def test_scores_are_of_block_outputs_and_of_predictions(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, tokens, found = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(40, 12), []
    for i, bound in enumerate((1 << 30, 1)):
        monkeypatch.setattr("bitwright.predictors.sensitivity.block_hooks.BOUND_BYTES", bound)
        with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / f"{i}") as subject:
            found.append(information_scores(subject))
            classes = mutual_information._predicted_classes(subject)
    np.testing.assert_array_equal(*found)
    out = tied.module(torch.from_numpy(tokens.ids), output_hidden_states=True)
    expected = information(out.hidden_states[1].flatten(0, 1).numpy(), classes.reshape(-1))
    within = next(u for u, unit in enumerate(space.units) if unit.layer == 0)
    assert found[0][within] == pytest.approx(expected, rel=1e-4)
    assert len({*found[0]}) == 2
