"""Prices from a sample of rows: unbiased by enumeration, near the prices of all rows, and equal to them where every row is drawn."""

from dataclasses import replace
from itertools import combinations, pairwise, permutations
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, RowSample
from bitwright.compress.codecs.row_sample import chances_of_rows
from bitwright.objectives import Reference, Tokens
from bitwright.predictors import gradient_products, row_sample, rows_wanted
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal, SampledLabels
from bitwright.predictors.sensitivity.gradients.products import AbsoluteProduct, SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.second_order import Expansion
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.predictors.sensitivity.gradients.sweep import Products, Sweep, measure_products, operating_point
from bitwright.predictors.sensitivity.row_samples import looked_up
from bitwright.progress import Silent
from bitwright.spaces import Space, Tensor
from tests.measuring import levels_of, random_tokens, space_of, uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow

MENU = ("Q8_0", "Q4_0")
TOKENS = random_tokens(4, 8)


def tensors(space: Space) -> list[Tensor]:
    return [tensor for unit in space.units for tensor in unit.tensors]


def drawn(model: Model, folder: Path, n_rows: int, seed: int = 0, tokens: Tokens = TOKENS) -> RowSample:
    return row_sample(model, levels_of(model, folder), tokens, tensors(space_of(model, MENU)), n_rows=lambda _: n_rows, seed=seed)


def swept(model: Model, folder: Path, sample: RowSample | None, *, sweep: Sweep | None = None, tokens: Tokens = TOKENS) -> Products:
    with opened(model, levels_of(model, folder), space=space_of(model, MENU), tokens=tokens, store=folder / "a.sqlite") as subject:
        return measure_products(replace(subject, sample=sample), sweep or Sweep(SampledLabels()))


def test_the_estimate_is_unbiased_over_all_samples_and_groups() -> None:
    """Rows 1 to 5 of which three are drawn, dealt into two groups in every way: on average the squares are those of the rows, and the part of the
    cross terms that falls to two drawn rows of one group.
    """
    y = np.random.default_rng(0).normal(size=5)
    found, sums = [], []
    for rows in combinations(range(5), 3):
        for groups in set(permutations((0, 1, 0))):
            parts = np.array([sum(y[row] for row, group in zip(rows, groups, strict=True) if group == g) for g in (0, 1)]) * np.sqrt(5 / 3)
            products = Products(np.full((1, 1, 1), y[list(rows)].sum() * 5 / 3), np.zeros((1, 1)), 1, parts.reshape(1, 2, 1, 1))
            found.append(2 * gradient_table(products)[0, 0])
            sums.append(products.values[0, 0, 0])
    diagonal, cross = float((y**2).sum()), float(y.sum() ** 2 - (y**2).sum())
    of_pair = (3 * 2) / (5 * 4) * (5 / 3) * (1 / 3)  # both drawn · their weight · both in one group
    assert np.mean(found) == pytest.approx(diagonal + of_pair * cross)
    assert np.mean(sums) == pytest.approx(y.sum())


def test_the_estimate_is_unbiased_whatever_the_chances() -> None:
    """Rows 1 to 4 of which two are drawn with unequal chances: every order of the rows, and every range of the first step in which the same rows are
    drawn, with each way to deal them into two groups.
    """
    y, chances = np.random.default_rng(0).normal(size=4), chances_of_rows(np.array([4.0, 2.0, 1.0, 1.0]), 2)
    squares, sums, cross = 0.0, 0.0, 0.0
    for order in permutations(range(4)):
        ends = np.cumsum(chances[list(order)])
        bounds = np.unique(np.concatenate([[0.0, 1.0], ends % 1.0]))
        for low, high in pairwise(bounds):
            rows = np.array(order)[np.searchsorted(ends, (low + high) / 2 + np.arange(2), side="right")]
            for groups in ((0, 0), (0, 1)):
                parts = np.array([sum(y[row] / np.sqrt(chances[row]) for row, of in zip(rows, groups, strict=True) if of == g) for g in (0, 1)])
                products = Products(np.full((1, 1, 1), (y[rows] / chances[rows]).sum()), np.zeros((1, 1)), 1, parts.reshape(1, 2, 1, 1))
                share = (high - low) / (24 * 2)
                squares += share * 2 * gradient_table(products)[0, 0]
                sums += share * products.values[0, 0, 0]
                cross += share * 2 * (groups[0] == groups[1]) * float((y[rows] / np.sqrt(chances[rows])).prod())
    assert sums == pytest.approx(y.sum())
    assert squares - cross == pytest.approx((y**2).sum())  # products of two rows' errors vanish in expectation


def test_independent_errors_of_rows_have_the_price_of_all_rows_with_less_noise() -> None:
    """Monte Carlo: rounding errors that are independent between rows, and gradients that are not."""
    rng, n_rows, n_drawn = np.random.default_rng(1), 256, 64
    gradients = rng.normal(size=(16, n_rows)) + rng.normal(size=(16, 1))  # (n_sequences, n_rows)
    expected = float((gradients**2).sum(axis=1).mean() / 2)
    whole, few = [], []
    for _ in range(400):
        y = gradients * rng.normal(size=n_rows)
        rows = rng.permutation(n_rows)[:n_drawn].reshape(8, -1)
        groups = y[:, rows].sum(axis=2) * np.sqrt(n_rows / n_drawn)  # (n_sequences, n_groups)
        whole.append(float(gradient_table(Products(y.sum(axis=1).reshape(-1, 1, 1), np.zeros((16, 1)), 1))[0, 0]))
        few.append(float(gradient_table(Products(np.zeros((16, 1, 1)), np.zeros((16, 1)), 1, groups[..., None, None]))[0, 0]))
    assert np.mean(few) == pytest.approx(expected, rel=0.05)
    assert np.mean(whole) == pytest.approx(expected, rel=0.15)
    assert np.std(few) < 0.6 * np.std(whole)


def test_the_standard_error_is_that_over_samples(tied: Model, tmp_path: Path) -> None:
    found = [swept(tied, tmp_path / str(seed), drawn(tied, tmp_path / str(seed), 16, seed)) for seed in range(8)]
    spread = np.std([gradient_table(products) for products in found], axis=0, ddof=1)
    said = np.sqrt(np.mean([products.sampling_errors() ** 2 for products in found], axis=0))
    offered = spread > 0
    ratios = said[offered] / spread[offered]
    assert 0.6 < np.median(ratios) < 1.7
    assert (swept(tied, tmp_path / "0", None).sampling_errors() == 0).all()


def test_all_rows_drawn_have_the_sums_of_all_rows(tied: Model, tmp_path: Path) -> None:
    whole, same = swept(tied, tmp_path, None), swept(tied, tmp_path, drawn(tied, tmp_path, 10**6))
    np.testing.assert_allclose(same.values, whole.values, rtol=1e-3, atol=1e-5)
    assert same.groups is not None
    assert same.groups.shape[1] == 8
    np.testing.assert_allclose(same.groups.sum(axis=1), whole.values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("product", [AbsoluteProduct(), SquaredOutputChange()], ids=lambda product: product.name)
def test_sums_that_never_cancel_are_near_those_of_all_rows(product: AbsoluteProduct, tied: Model, tmp_path: Path) -> None:
    sweep = Sweep(SampledLabels(), product)
    whole, few = (swept(tied, tmp_path, sample, sweep=sweep).per_token() for sample in (None, drawn(tied, tmp_path, 24)))
    assert few[whole > 0] / whole[whole > 0] == pytest.approx(np.ones((whole > 0).sum()), abs=0.8)
    assert few.sum() == pytest.approx(whole.sum(), rel=0.25)


def test_a_stack_s_experts_are_priced_by_rows_of_each(mixtral: Model, tmp_path: Path) -> None:
    whole, same = swept(mixtral, tmp_path, None), swept(mixtral, tmp_path, drawn(mixtral, tmp_path, 10**6))
    np.testing.assert_allclose(same.values, whole.values, rtol=1e-3, atol=1e-5)
    few = swept(mixtral, tmp_path, drawn(mixtral, tmp_path, 16))
    assert (gradient_table(few) > 0).sum() == (gradient_table(whole) > 0).sum()


def test_slopes_and_curvatures_at_a_choice_come_from_the_sample(tied: Model, tmp_path: Path) -> None:
    space, sample = space_of(tied, MENU), drawn(tied, tmp_path, 10**6)
    coarse, fine = uniform(space, "Q4_0"), uniform(space, "Q8_0")
    found = []
    for each in (None, sample):
        with opened(tied, levels_of(tied, tmp_path), space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject:
            at = replace(subject, sample=each)
            reference = Reference(tied, TOKENS, scratch=tmp_path, progress=Silent())
            found.append(Expansion(at, gradient_products(at), reference)(coarse))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-3, atol=1e-6)
    units = np.arange(len(space.units))
    assert (found[1][1][units, fine] > 0).all()
    assert (found[1][1][units, coarse] == 0).all()


def test_the_same_seed_draws_the_same_prices_and_shrinks_them(tied: Model, tmp_path: Path) -> None:
    first, again = (swept(tied, tmp_path / name, drawn(tied, tmp_path / name, 16)) for name in ("a", "b"))
    assert first.groups is not None
    assert again.groups is not None
    np.testing.assert_array_equal(first.groups, again.groups)
    error = np.where(gradient_table(first) > 0, 1e-3, 0)
    assert (shrunk_table(first.only(np.array([0, 2])), error)[error > 0] > 0).all()


def test_no_tensor_is_packed_whole(tied: Model, tmp_path: Path) -> None:
    swept(
        tied,
        tmp_path,
        drawn(tied, tmp_path, 16),
        sweep=Sweep(FromOriginal(), at=operating_point(space_of(tied, MENU), space_of(tied, MENU).largest())),
    )
    sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*.Q4_0")}
    forms = {form.name: form for form in space_of(tied, MENU).formats}
    assert len(sizes) == len(tensors(space_of(tied, MENU)))
    assert sum(sizes.values()) < 0.6 * sum(forms["Q4_0"].size_bytes(tensor.shape) for tensor in tensors(space_of(tied, MENU)))


def test_the_rows_that_the_text_looks_up_are_all_drawn(tied: Model, tmp_path: Path) -> None:
    (name, rows), *others = looked_up(tied, TOKENS).items()
    assert not others
    assert rows.tolist() == np.unique(TOKENS.ids).tolist()
    tensor = next(tensor for tensor in tied.tensors if tensor.name == name)
    assert set(rows) <= set(drawn(tied, tmp_path, 16).within(tensor, 0, tensor.shape[0])[0])


def test_a_quarter_of_the_rows_of_embedding_and_head_is_drawn(tied: Model, tmp_path: Path) -> None:
    (name,) = looked_up(tied, TOKENS)
    tensor = next(tensor for tensor in tied.tensors if tensor.name == name)
    few = drawn(tied, tmp_path, 16)
    n_rows, n_certain = tensor.shape[0], len(np.unique(TOKENS.ids))
    assert len(few.within(tensor, 0, n_rows)[0]) == n_certain + n_rows // 4
    other = next(tensor for tensor in tensors(space_of(tied, MENU)) if tensor.name != name)
    assert len(few.within(other, 0, other.shape[0])[0]) == 16


def test_rows_follow_from_the_error_wanted() -> None:
    wide, narrow = Tensor("a", (10**7, 64), "F32"), Tensor("b", (100, 64), "F32")
    assert rows_wanted(wide, 0.1) == 200
    assert rows_wanted(wide, 0.05) == 800
    assert rows_wanted(narrow, 0.1) == 67
