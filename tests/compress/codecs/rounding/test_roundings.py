"""Clipping, HQQ and GPTQ: what each promises, on every grid."""

from itertools import product

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Rounding, integer_codec
from bitwright.compress.codecs.grid import Grid, MinimumGrid, SymmetricGrid, ZeroPointGrid
from bitwright.compress.codecs.rounding.clipping import SearchedClipping, clipped
from bitwright.compress.codecs.rounding.feedback import factor
from bitwright.compress.codecs.rounding.gptq import Gptq, as_stored, by_activation
from bitwright.compress.codecs.rounding.half_quadratic import HalfQuadratic
from bitwright.compress.codecs.rounding.rounding import RoundToNearest, values
from bitwright.spaces import INTEGER_FORMATS, IntegerFormat
from bitwright.testing.codec_contract import CodecContract, normal

GRIDS: list[Grid] = [MinimumGrid(3), ZeroPointGrid(3, torch.bfloat16), SymmetricGrid(3, torch.float32)]
SOME = tuple(form for form in INTEGER_FORMATS if isinstance(form, IntegerFormat) and form.name in ("INT2_G32", "INT3_G64", "INT4_ROW", "INT8_G128"))
WORST = {form.name: 5.0 * 4.0**-form.bits for form in SOME}


class TestClippingCodec(CodecContract):
    codec = integer_codec(SearchedClipping())
    formats = SOME
    worst = WORST

    def block(self, form: IntegerFormat) -> int:
        return form.group or 44


class TestHalfQuadraticCodec(TestClippingCodec):
    codec = integer_codec(HalfQuadratic())


class TestGptqWithoutInputs(TestClippingCodec):
    codec = integer_codec(Gptq({}))


def inputs(n_tokens: int, n_columns: int) -> Floats:
    """Correlated, of uneven size `(n_tokens, n_columns)`."""
    rng = np.random.default_rng(7)
    mixed = rng.normal(size=(n_tokens, n_columns)) @ rng.normal(size=(n_columns, n_columns)) / np.sqrt(n_columns)
    return (mixed * rng.uniform(0.2, 3, n_columns)).astype(np.float32)


def made(rounding: Rounding, weights: Floats, grid: Grid, *, group: int, x: Floats) -> Floats:
    importance = (x**2).mean(axis=0)
    return values(rounding.rounded(weights, grid, group=group, importance=importance), grid, group)


def gptq(x: Floats, **settings: object) -> Rounding:
    return Gptq({"t": (x.T @ x)[None]}, **settings).for_tensor("t")  # type: ignore[arg-type]


def output_error(weights: Floats, rounded: Floats, x: Floats) -> float:
    return float(((x @ (rounded - weights).T) ** 2).sum())


@pytest.mark.parametrize("grid", GRIDS)
def test_clipping_is_never_worse_than_the_whole_range(grid: Grid) -> None:
    weights, x = normal(8, 70), inputs(64, 70)
    power = (x**2).mean(axis=0)
    errors = [((made(rounding, weights, grid, group=32, x=x) - weights) ** 2 * power) for rounding in (SearchedClipping(), RoundToNearest())]
    for start in range(0, 70, 32):
        ours, whole = (error[:, start : start + 32].sum(axis=1) for error in errors)
        assert (ours <= whole * 1.0001).all()
    assert errors[0].sum() < 0.9 * errors[1].sum()


def test_clipping_looks_at_what_is_important() -> None:
    weights = np.array([[[-1.0, -0.9, 0.0, 0.1, 0.9, 8.0]]], dtype=np.float32)
    ends = []
    for last in (0.0, 100.0):
        importance = np.array([[1.0, 1.0, 1.0, 1.0, 1.0, last]], dtype=np.float32)
        placement = clipped(weights, importance, MinimumGrid(2))
        ends.append(float((placement.offset + 3 * placement.scale)[0, 0]))
    assert ends[0] < 7.5 < ends[1]


def test_half_quadratic_moves_levels_toward_the_many() -> None:
    weights = normal(16, 128)
    weights[:, ::40] *= 3
    grid, ones = MinimumGrid(2), np.ones((1, 128), dtype=np.float32)
    mean = [np.abs(made(rounding, weights, grid, group=64, x=ones) - weights) for rounding in (HalfQuadratic(), RoundToNearest())]
    by_group = [error.reshape(16, 2, 64).mean(axis=2) for error in mean]
    assert (by_group[0] <= by_group[1] + 1e-6).all()
    assert mean[0].sum() < 0.97 * mean[1].sum()


def test_half_quadratic_leaves_levels_that_cannot_move() -> None:
    weights, grid, ones = normal(4, 64), SymmetricGrid(3, torch.float32), np.ones((1, 64), dtype=np.float32)
    assert np.array_equal(made(HalfQuadratic(), weights, grid, group=32, x=ones), made(RoundToNearest(), weights, grid, group=32, x=ones))


def one_row_slowly(row: Floats, x: Floats, order: list[int], grid: Grid, *, group: int, when: str) -> Floats:
    """Optimal brain quantization in a given order, one column at a time, with the inverse computed anew for what is left (equations 2 and 3)."""
    h = 2 * x.T.astype(np.float64) @ x
    h += 0.01 * np.diag(h).mean() * np.eye(len(row))
    w, left, found, places = row.astype(np.float64), list(order), np.zeros(len(row)), {}
    for i in order:
        g = i // group
        if g not in places:
            whole = (row if when == "beforehand" else w)[g * group : (g + 1) * group].astype(np.float32)
            places[g] = grid.between(whole.min()[None], whole.max()[None])
        codes = grid.nearest(w[i, None, None].astype(np.float32), places[g])
        found[i] = grid.values(codes, places[g])[0, 0]
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        w[left] -= (w[i] - found[i]) / inverse[0, 0] * inverse[0]
        left.remove(i)
    return found


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", [as_stored, by_activation])
@pytest.mark.parametrize("when", ["beforehand", "as they come"])
def test_gptq_is_optimal_brain_quantization_in_a_fixed_order(grid: Grid, order: object, when: str) -> None:
    weights, x = normal(3, 20), inputs(50, 20)
    columns = order(np.diag(x.T @ x).astype(np.float64)).tolist()  # type: ignore[operator]
    slowly = np.array([one_row_slowly(row, x, columns, grid, group=8, when=when) for row in weights])
    for block in (1, 5, 128):
        np.testing.assert_allclose(made(gptq(x, order=order, block=block, when=when), weights, grid, group=8, x=x), slowly, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_gptq_makes_errors_good(grid: Grid) -> None:
    weights, x = normal(16, 96), inputs(400, 96)
    nearest = output_error(weights, made(RoundToNearest(), weights, grid, group=32, x=x), x)
    for order, when in product((as_stored, by_activation), ("beforehand", "as they come")):
        assert output_error(weights, made(gptq(x, order=order, when=when), weights, grid, group=32, x=x), x) < 0.6 * nearest


def test_gptq_with_equal_uncorrelated_inputs_is_round_to_nearest() -> None:
    weights, eye = normal(4, 40), np.eye(40, dtype=np.float32)
    for grid in GRIDS:
        assert np.array_equal(made(gptq(eye), weights, grid, group=16, x=eye), made(RoundToNearest(), weights, grid, group=16, x=eye))


def test_gptq_keeps_channels_that_no_token_reached_and_experts_without_tokens() -> None:
    weights, x = normal(4, 32), inputs(100, 32)
    x[:, 5] = 0
    change = made(gptq(x), weights, MinimumGrid(4), group=16, x=x) - weights
    assert np.abs(change[:, 5]).max() < 0.5
    nothing = np.zeros((3, 32), dtype=np.float32)
    assert np.array_equal(
        made(gptq(nothing), weights, MinimumGrid(4), group=16, x=nothing),
        made(RoundToNearest(), weights, MinimumGrid(4), group=16, x=nothing),
    )


def test_the_factor_is_that_of_the_inverse() -> None:
    x = inputs(60, 12).astype(np.float64)
    h = 2 * x.T @ x
    t = factor(x.T @ x, 0.01).astype(np.float64)
    assert np.array_equal(t, np.triu(t))
    np.testing.assert_allclose(t.T @ t / np.diag(h / 2).mean(), np.linalg.inv(h + 0.01 * np.diag(h).mean() * np.eye(12)), rtol=1e-4, atol=1e-8)


def test_gptq_takes_the_moments_of_each_expert() -> None:
    first, second = inputs(80, 32), inputs(80, 32)[:, ::-1].copy()
    weights = normal(8, 32)
    codec = integer_codec(Gptq({"t": np.stack([first.T @ first, second.T @ second])}))
    form, channels = next(form for form in SOME if form.name == "INT2_G32"), np.ones((1, 32), dtype=np.float32)
    found = [codec.for_tensor("t", i).encode(weights, form, channels) for i in range(2)]
    assert all(np.array_equal(rows, integer_codec(gptq(x)).encode(weights, form, channels)) for rows, x in zip(found, (first, second), strict=True))
    assert not np.array_equal(*found)
