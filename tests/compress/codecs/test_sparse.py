"""Codecs of fewer weights: the contract of codecs, the right masks, and SparseGPT beside optimal brain surgery computed slowly."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.compress import Floats, Rounding, integer_codec, rounding_named
from bitwright.compress.codecs.expansion import expanded
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.pruning import largest
from bitwright.spaces import NATIVE_FORMATS, NOfM, SignFormat, SparseFormat
from bitwright.spaces.sparse_format import PrunedShare
from bitwright.testing.codec_contract import CodecContract, importance, normal, unknown

SPARSE = {form.name: form for form in NATIVE_FORMATS if isinstance(form, SparseFormat)}
SOME = {"BF16_2OF4": 0.28, "INT8_4OF8": 0.25, "INT4_2OF4": 0.3, "INT2_S25": 0.3, "INT4_S50": 0.24, "INT3_1OF4": 0.65}
NONE = np.empty((0, 64), dtype=np.float32)


class TestToNearest(CodecContract):
    codec = integer_codec()
    formats = tuple(SPARSE[name] for name in SOME)
    worst = SOME


class TestGptqWithoutMoments(CodecContract):
    codec = integer_codec(Gptq({}))
    formats = (SPARSE["INT4_2OF4"], SPARSE["INT4_S50"])
    worst = SOME


class TestSigns(CodecContract):
    codec = integer_codec()
    formats = tuple(form for form in NATIVE_FORMATS if isinstance(form, SignFormat))
    worst = dict.fromkeys((form.name for form in formats), 0.4)


def decoded(weights: Floats, name: str, rounding: Rounding, channels: Floats = NONE) -> Floats:
    codec = integer_codec(rounding).for_tensor("t")
    return codec.decode(codec.encode(weights, SPARSE[name], channels), SPARSE[name], weights.shape)


def test_signs_have_the_scale_of_least_error() -> None:
    weights, form = normal(3, 128), next(form for form in NATIVE_FORMATS if form.name == "INT1_G64")
    found = integer_codec().decode(integer_codec().encode(weights, form, unknown(128)), form, weights.shape)
    scale = np.abs(weights).reshape(3, 2, 64).mean(axis=2).astype(np.float16).astype(np.float32).repeat(64, axis=1)
    assert np.array_equal(found, np.sign(weights) * scale)


@pytest.mark.parametrize("name", ["BF16_2OF4", "BF16_4OF8", "BF16_S25", "BF16_S75"])
def test_what_counts_most_is_kept(name: str) -> None:
    weights, channels = normal(5, 64), importance(1, 64)
    for of, score in ((NONE, np.abs(weights)), (channels, np.abs(weights) * np.sqrt(channels))):
        found = decoded(weights, name, rounding_named("rtn", {}), of)
        kept = found != 0
        assert np.array_equal(found[kept], torch.from_numpy(weights[kept]).bfloat16().float().numpy())
        pattern = SPARSE[name].pattern
        among = pattern.of if isinstance(pattern, NOfM) else 64
        for row, mask in zip(score.reshape(-1, among), kept.reshape(-1, among), strict=True):
            assert mask.sum() == pattern.n_kept(among)
            assert row[mask].min() > row[~mask].max()


@pytest.mark.parametrize("form", [*SPARSE.values()], ids=lambda form: form.name)
def test_packed_weights_expand_to_kept_values_and_zeros(form: SparseFormat) -> None:
    weights = normal(7, 72)
    packed = integer_codec().encode(weights, form, unknown(72))
    found = expanded(torch.from_numpy(packed).view(7, -1), form, 72).numpy()
    mask, n_kept = largest(np.abs(weights), form.pattern), form.pattern.n_kept(72)
    values = integer_codec().encode(np.ascontiguousarray(weights[mask].reshape(7, n_kept)), form.base, unknown(n_kept))
    assert np.array_equal(found[mask].reshape(7, n_kept), integer_codec().decode(values, form.base, (7, n_kept)))
    assert not found[~mask].any()


def inputs(n_tokens: int, n_columns: int) -> Floats:
    """Correlated inputs of a layer, most of whose variance is in some directions."""
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(n_columns, n_columns)) * np.geomspace(1, 0.03, n_columns)[:, None]
    return (rng.normal(size=(n_tokens, n_columns)) @ mixed).astype(np.float32)


def gptq(x: Floats, block: int = 128) -> Gptq:
    return Gptq({"t": (x.T @ x)[None]}, block=block)


def surgery_slowly(row: Floats, x: Floats, pattern: NOfM) -> Floats:
    """Prune from left to right: n of every m by the score w² / [H⁻¹]ᵢᵢ as each column would see it, H⁻¹ of what is left computed anew."""
    h = 2 * x.T.astype(np.float64) @ x
    h += 0.01 * np.diag(h).mean() * np.eye(len(row))
    w, n = row.astype(np.float64), len(row)
    keep = np.zeros(n, dtype=bool)
    inverses = [np.linalg.inv(h[i:, i:]) for i in range(n)]
    for i in range(n):
        if i % pattern.of == 0:
            score = [w[j] ** 2 / inverses[j][0, 0] for j in range(i, i + pattern.of)]
            keep[i + np.argsort(score)[-pattern.kept :]] = True
        if not keep[i]:
            w[i:] -= w[i] / inverses[i][0, 0] * inverses[i][0]
            w[i] = 0
    return w.astype(np.float32)


@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(1, 4), NOfM(4, 8)], ids=lambda pattern: pattern.name)
@pytest.mark.parametrize("block", [3, 8, 128])
def test_pruning_is_optimal_brain_surgery_from_left_to_right(pattern: NOfM, block: int) -> None:
    weights, x = normal(4, 24), inputs(80, 24)
    found = gptq(x, block).for_tensor("t").pruned(weights, pattern, importance=np.ones(24, dtype=np.float32))
    slowly = np.array([surgery_slowly(row, x, pattern) for row in weights])
    assert np.array_equal(found.mask, slowly != 0)
    exact = np.array([least_squares(row, x, mask) for row, mask in zip(weights, found.mask, strict=True)])
    lost, least, before = (float((((w - weights) @ x.T) ** 2).sum()) for w in (found.weights, exact, slowly))
    assert 0.99 * least < lost < 1.02 * least < before


def least_squares(row: Floats, x: Floats, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights where the mask is true that give the outputs of a whole row, damped as GPTQ is, and zeros elsewhere."""
    h = x.T.astype(np.float64) @ x
    h += 0.01 * np.diag(h).mean() * np.eye(len(row))
    found = np.zeros(len(row))
    found[mask] = np.linalg.solve(h[np.ix_(mask, mask)], h[mask] @ row.astype(np.float64))
    return found


@pytest.mark.parametrize("block", [7, 128])
def test_every_row_keeps_its_share(block: int) -> None:
    weights, x = normal(6, 50), inputs(200, 50)
    for percent in (25, 50, 75):
        found = gptq(x, block).for_tensor("t").pruned(weights, PrunedShare(1000 * percent), importance=np.ones(50, dtype=np.float32))
        assert (found.mask.sum(axis=1) == 50 - 50 * percent // 100).all()
        assert np.array_equal(found.weights != 0, found.mask)


@pytest.mark.parametrize("name", ["BF16_2OF4", "INT4_2OF4", "INT4_S50", "INT3_4OF8", "INT4_1OF4"])
def test_error_feedback_makes_pruning_good(name: str) -> None:
    weights, x = normal(32, 64), inputs(600, 64)
    channels = (x**2).mean(axis=0)[None]
    error = [float((((decoded(weights, name, rounding, channels) - weights) @ x.T) ** 2).sum()) for rounding in (rounding_named("rtn", {}), gptq(x))]
    assert error[1] < 0.75 * error[0]


def test_codes_are_settled_after_pruning_and_zeros_stay() -> None:
    """Beside the same pass written per row, on levels placed on what pruning left."""
    weights, x, form = normal(3, 24), inputs(80, 24), SPARSE["INT3_2OF4"]
    rounding = gptq(x).for_tensor("t")
    pruned = rounding.pruned(weights, form.pattern, importance=np.ones(24, dtype=np.float32))
    h = 2 * x.T.astype(np.float64) @ x
    h += 0.01 * np.diag(h).mean() * np.eye(24)
    order = np.argsort(-np.diag(x.T @ x), kind="stable").tolist()
    expected = np.zeros_like(weights)
    for row in range(3):
        w, left = pruned.weights[row].astype(np.float64), list(order)
        kept = pruned.weights[row][pruned.mask[row]]
        low = np.float32(np.float16(kept.min()))
        step = np.float32(np.float16((kept.max() - low) / 7))
        for i in order:
            code = np.clip(np.rint((np.float32(w[i]) - low) / step), 0, 7)
            expected[row, i] = low + step * code if pruned.mask[row, i] else 0
            inverse = np.linalg.inv(h[np.ix_(left, left)])
            w[left] -= (w[i] - expected[row, i]) / inverse[0, 0] * inverse[0]
            left.remove(i)
    np.testing.assert_allclose(decoded(weights, "INT3_2OF4", gptq(x)), expected, atol=1e-4)


def test_formats_of_one_pattern_share_the_mask_of_a_tensor_and_only_of_it() -> None:
    x, other = inputs(200, 64), inputs(100, 64)
    rounding = Gptq({"a": (x.T @ x)[None], "b": (other.T @ other)[None]})
    shared, weights, more = integer_codec(rounding), normal(5, 64), normal(5, 64)[::-1].copy()
    for tensor, given, name in product("aab", (weights, more), ("INT3_S50", "INT4_2OF4", "INT4_S50")):
        alone = integer_codec(rounding).for_tensor(tensor).encode(given, SPARSE[name], NONE)
        assert np.array_equal(shared.for_tensor(tensor).encode(given, SPARSE[name], NONE), alone)
