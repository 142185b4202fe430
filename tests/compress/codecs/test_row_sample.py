"""Samples of rows: drawn by tensor and seed, packed as in the whole tensor, and estimates that are right on average over all samples."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import GgmlCodec, PackedTensors, RowSample, all_rows, drawn_rows, measure_distortion, sampled_distortion
from bitwright.compress.codecs.row_sample import DrawnRows, chances_of_rows
from bitwright.engines import LLAMA_CPP
from bitwright.progress import Silent
from bitwright.spaces import Tensor, Unit
from bitwright.testing.codec_contract import importance
from tests.compress import made_sources as made

DENSE = Tensor("blk.0.attn_q.weight", (24, 256), "F32")
STACK = Tensor("blk.0.ffn_up_exps.weight", (3, 8, 256), "F32")
CHANNELS = {DENSE.name: importance(1, 256), STACK.name: importance(3, 256)}
MENU = ("Q8_0", "Q4_K", "IQ2_XXS")


def levels(folder: Path) -> PackedTensors:
    return PackedTensors(folder, made.MadeSource((DENSE, STACK)), GgmlCodec(), CHANNELS)


def sample(folder: Path, n_rows: int = 6, seed: int = 0) -> RowSample:
    return RowSample(levels(folder), {t.name: drawn_rows(t, n_rows, n_groups=2, seed=seed) for t in (DENSE, STACK)}, 2)


@pytest.mark.slow
@pytest.mark.parametrize("tensor", [DENSE, STACK], ids=["matrix", "stack"])
def test_drawn_rows_have_the_bytes_that_they_have_in_the_whole_tensor(tensor: Tensor, tmp_path: Path) -> None:
    few, whole = sample(tmp_path), levels(tmp_path)
    rows, places, _ = few.within(tensor, 0, 24)
    assert len(rows) == 6
    for form in (LLAMA_CPP.format(name) for name in (*MENU, "F32")):
        expected = np.array(whole.packed(tensor, form)).reshape(24, -1)[rows]
        assert np.array_equal(np.array(few.levels.packed(few.packed(tensor), form)).reshape(6, -1)[places], expected)
        assert np.array_equal(few.levels.some_rows(few.packed(tensor), form, places), whole.some_rows(tensor, form, rows))


def test_rows_depend_on_the_tensor_and_the_seed_alone() -> None:
    first, again, other = (drawn_rows(DENSE, 6, n_groups=2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.groups, again.groups)
    assert not np.array_equal(first.rows, other.rows)
    assert not np.array_equal(first.rows, drawn_rows(Tensor("blk.1.attn_q.weight", DENSE.shape, "F32"), 6, n_groups=2, seed=1).rows)


def test_each_matrix_of_a_stack_and_all_certain_rows_are_drawn() -> None:
    of_stack = drawn_rows(STACK, 6, n_groups=2, seed=0)
    assert [int(((of_stack.rows // 8) == expert).sum()) for expert in range(3)] == [2, 2, 2]
    assert of_stack.weights.tolist() == [4] * 6
    certain = drawn_rows(DENSE, 5, n_groups=2, seed=0, certain=np.array([3, 7, 7]))
    assert len(certain.rows) == 7
    assert certain.weights[np.isin(certain.rows, [3, 7])].tolist() == [1, 1]
    assert certain.weights.sum() == pytest.approx(24)
    assert drawn_rows(DENSE, 100, n_groups=2, seed=0).weights.tolist() == [1] * 24


def test_sizes_decide_the_chances_and_sums_stay_right_on_average() -> None:
    """Many seeds: every row is drawn as often as its weight says, sums have no bias, and they vary less than with equal chances."""
    sizes = np.random.default_rng(0).gamma(0.2, size=24)
    y = sizes * np.random.default_rng(1).uniform(0.5, 1.5, size=24)
    n_seeds, times, sums = 3000, np.zeros(24), {"sizes": np.zeros(3000), "equal": np.zeros(3000)}
    for seed in range(n_seeds):
        by_size, equal = (drawn_rows(DENSE, 6, n_groups=2, seed=seed, sizes=each) for each in (sizes, None))
        assert len(np.unique(by_size.rows)) == 6
        times[by_size.rows] += 1
        for name, drawn in (("sizes", by_size), ("equal", equal)):
            sums[name][seed] = (drawn.weights * y[drawn.rows]).sum()
    chances = chances_of_rows(sizes, 6)
    assert chances.sum() == pytest.approx(6)
    np.testing.assert_allclose(times / n_seeds, chances, atol=4 * 0.5 / np.sqrt(n_seeds))
    for of_seeds in sums.values():
        assert of_seeds.mean() == pytest.approx(y.sum(), abs=4 * of_seeds.std() / np.sqrt(n_seeds))
    assert sums["sizes"].std() < 0.5 * sums["equal"].std()


def test_chances_are_in_proportion_up_to_one_and_never_nothing() -> None:
    found = chances_of_rows(np.array([8.0, 2.0, 1.0, 1.0]), 2)
    assert found[0] == 1
    assert found.sum() == pytest.approx(2)
    assert found[1] > found[2] == found[3] > 0
    assert chances_of_rows(np.array([1.0, 0.0, 0.0, 0.0]), 2).tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert chances_of_rows(np.zeros(4), 1).tolist() == [0.25] * 4
    assert chances_of_rows(np.ones(3), 3).tolist() == [1, 1, 1]


def test_factors_are_weights_and_their_roots_by_group() -> None:
    drawn = drawn_rows(DENSE, 9, n_groups=3, seed=0, certain=np.array([0, 5, 6]))
    few = RowSample(levels(Path("unused")), {DENSE.name: drawn}, 3)
    rows, places, factors = few.within(DENSE, 4, 20)
    assert rows.tolist() == [row for row in drawn.rows if 4 <= row < 20]
    assert np.array_equal(drawn.rows[places], rows)
    assert np.array_equal(factors[:, 0], drawn.weights[places])
    assert np.array_equal(factors[:, 1:].argmax(axis=1), drawn.groups[places])
    np.testing.assert_allclose((factors[:, 1:] ** 2).sum(axis=1), factors[:, 0])
    assert ((factors[:, 1:] > 0).sum(axis=1) == 1).all()


def test_all_rows_are_the_levels_themselves(tmp_path: Path) -> None:
    here = levels(tmp_path)
    whole = all_rows(here)
    rows, places, factors = whole.within(DENSE, 3, 9)
    assert (rows.tolist(), places.tolist(), factors[:, 0].tolist()) == ([*range(3, 9)], [*range(3, 9)], [1] * 6)
    assert (whole.is_whole, whole.key, whole.levels, whole.packed(DENSE)) == (True, "", here, DENSE)
    assert sample(tmp_path).key not in ("", sample(tmp_path, seed=1).key)


def test_sums_of_errors_are_right_on_average_over_all_samples(tmp_path: Path) -> None:
    """Enumerate the samples of two of four rows, beside one that is certain: the mean of the weighted sums is that of all rows."""
    tensor = Tensor("blk.0.attn_q.weight", (5, 256), "F32")
    here = PackedTensors(tmp_path, made.MadeSource((tensor,)), GgmlCodec(), {})
    form = LLAMA_CPP.format("Q4_K")
    errors = np.square(here.weights(tensor, form) - here.source.read(tensor)).sum(axis=1)
    sums = []
    for pair in combinations((0, 1, 3, 4), 2):
        drawn = DrawnRows(np.array(sorted([2, *pair])), np.ones(3), np.arange(3))
        drawn.weights[drawn.rows != 2] = 2
        few = RowSample(here, {tensor.name: drawn}, 3)
        packed = few.packed(tensor)
        decoded = few.levels.weights(packed, form) - few.levels.source.read(packed)
        sums.append(float((np.square(decoded).sum(axis=1) * few.row_weights(tensor)).sum()))
    assert np.mean(sums) == pytest.approx(errors.sum(), rel=1e-5)
    assert np.std(sums) > 0


def test_errors_of_a_sample_are_near_those_of_all_rows_and_equal_where_it_has_all(tmp_path: Path) -> None:
    units = (Unit("q", 0, "attn_q", (DENSE,)), Unit("up", 0, "ffn_up_exps", (STACK,)))
    space = LLAMA_CPP.space(units, menu=MENU, fixed_bytes=0, n_weights=1)
    whole = measure_distortion(space, levels(tmp_path / "whole"), progress=Silent())
    near = sampled_distortion(space, sample(tmp_path / "some", 12), progress=Silent())
    same = sampled_distortion(space, sample(tmp_path / "all", 24), progress=Silent())
    for found, tolerance in ((near, 0.1), (same, 1e-6)):
        np.testing.assert_allclose(found.plain, whole.plain, rtol=tolerance)
        np.testing.assert_allclose(found.weighted, whole.weighted, rtol=tolerance)
    assert not np.array_equal(near.plain, whole.plain, equal_nan=True)


def test_rows_count_in_errors_by_their_weights(tmp_path: Path) -> None:
    tensor, form = Tensor("blk.0.attn_q.weight", (3, 256), "F32"), LLAMA_CPP.format("Q4_K")
    here, weights = PackedTensors(tmp_path, made.MadeSource((tensor,)), GgmlCodec(), {}), np.array([1.0, 4.0])
    few = RowSample(here, {tensor.name: DrawnRows(np.array([0, 2]), weights, np.array([0, 1]))}, 2)
    original = here.source.read(tensor)[[0, 2]]
    change = here.weights(tensor, form)[[0, 2]] - original
    expected = (weights @ np.square(change).sum(axis=1)) / (weights @ np.square(original).sum(axis=1))
    space = LLAMA_CPP.space((Unit("q", 0, "attn_q", (tensor,)),), menu=("Q4_K",), fixed_bytes=0, n_weights=1)
    found = sampled_distortion(space, few, progress=Silent())
    assert found.plain[0, space.formats.index(form)] == pytest.approx(expected, rel=1e-5)
