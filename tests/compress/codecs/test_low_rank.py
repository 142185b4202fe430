"""Pairs of low rank: the best of their rank, weighed by the inputs, and the bytes that they are stored in."""

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Rounding, expanded_rows, integer_codec, rounding_named
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.errors import ModelError
from bitwright.spaces import NATIVE_FORMATS, RankFormat
from bitwright.testing.codec_contract import normal, unknown
from tests.sentences import sentence

RANKS = {form.name: form for form in NATIVE_FORMATS if isinstance(form, RankFormat)}
NEAREST = rounding_named("rtn", {})


def decoded(weights: Floats, name: str, rounding: Rounding = NEAREST, channels: Floats | None = None) -> Floats:
    codec, form = integer_codec(rounding).for_tensor("t"), RANKS[name]
    packed = codec.encode(weights, form, unknown(weights.shape[1]) if channels is None else channels)
    assert packed.shape == (form.size_bytes(weights.shape),)
    return codec.decode(packed, form, weights.shape)


def inputs(n_tokens: int, n_columns: int) -> Floats:
    """Correlated inputs of a layer, most of whose variance is in some directions."""
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(n_columns, n_columns)) * np.geomspace(1, 0.03, n_columns)[:, None]
    return (rng.normal(size=(n_tokens, n_columns)) @ mixed).astype(np.float32)


def test_a_matrix_of_that_rank_comes_back() -> None:
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(40, 8)) @ rng.normal(size=(8, 72))).astype(np.float32)
    assert np.abs(decoded(weights, "SVD_R8") - weights).max() < 0.03 * np.abs(weights).max()


def test_the_pair_alone_is_the_truncated_decomposition() -> None:
    weights = normal(96, 80)
    values = np.linalg.svd(weights, compute_uv=False)
    least = float((values[16:] ** 2).sum())
    found = float(((decoded(weights, "SVD_R16") - weights) ** 2).sum())
    assert least <= found < 1.01 * least


@pytest.mark.parametrize("known", ["importance", "moments"])
def test_the_pair_loses_least_of_the_output(known: str) -> None:
    """Beside the decomposition of W C, C the root of the moments of the inputs: no pair of that rank loses less."""
    weights, x = normal(64, 64), inputs(900, 64)
    channels = (x**2).mean(axis=0)
    moments = np.diag(channels.astype(np.float64)) if known == "importance" else (x.T.astype(np.float64) @ x) / len(x)
    rounding = NEAREST if known == "importance" else Gptq({"t": moments[None].astype(np.float32)})
    found = decoded(weights, "SVD_R16", rounding, channels[None])

    def loss(change: Floats) -> float:
        return float(np.einsum("rc,cd,rd->", change, moments, change))

    values = np.linalg.svd(weights @ np.linalg.cholesky(moments + 1e-9 * np.eye(64)), compute_uv=False)
    least = float((values[16:] ** 2).sum())
    assert 0.999 * least <= loss(found - weights) < 1.06 * least
    left, of, right = np.linalg.svd(weights, full_matrices=False)
    assert loss(found - weights) < 0.95 * loss((left[:, :16] * of[:16]) @ right[:16] - weights)


@pytest.mark.parametrize("name", ["INT1_R8", "INT2_R16", "INT4_R32", "INT8_R64"])
def test_a_pair_restores_part_of_what_rounding_lost(name: str) -> None:
    weights = normal(80, 128)
    base = integer_codec().decode(integer_codec().encode(weights, RANKS[name].base, unknown(128)), RANKS[name].base, weights.shape)
    lost = float(((base - weights) ** 2).sum())
    tail = float((np.linalg.svd(weights - base, compute_uv=False)[RANKS[name].rank :] ** 2).sum())
    found = float(((decoded(weights, name) - weights) ** 2).sum())
    assert found <= 1.02 * tail < lost


@pytest.mark.parametrize("name", ["INT3_R8", "SVD_R16", "INT1_R16"])
def test_rows_are_the_same_one_by_one_and_together(name: str) -> None:
    weights, form = normal(50, 90), RANKS[name]
    packed = torch.from_numpy(integer_codec().encode(weights, form, unknown(90)))
    whole = expanded_rows(packed, form, (50, 90), slice(None))
    assert np.array_equal(whole.numpy(), integer_codec().decode(packed.numpy(), form, (50, 90)))
    for wanted in (slice(3, 4), slice(7, 40), torch.tensor([49, 0, 0, 12])):
        assert torch.equal(expanded_rows(packed, form, (50, 90), wanted), whole[wanted])


def test_a_row_is_its_codes_and_factors_by_the_book() -> None:
    form, weights = RANKS["INT4_R8"], normal(10, 64)
    packed = integer_codec().encode(weights, form, unknown(64))
    rows, columns = packed[: 10 * (36 + 10)].reshape(10, 46), packed[10 * 46 :].reshape(64, 10)
    base = integer_codec().decode(np.ascontiguousarray(rows[:, :36]).reshape(-1), form.base, (10, 64))
    left, right = (np.ascontiguousarray(part[:, :8]).view(np.int8).astype(np.float64) for part in (rows[:, 36:], columns))
    of_rows, of_columns = (np.ascontiguousarray(part[:, 8:]).view(np.float16).astype(np.float64) for part in (rows[:, 36:], columns))
    expected = base + (left @ right.T) * of_rows * of_columns.T
    np.testing.assert_allclose(integer_codec().decode(packed, form, (10, 64)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["zero", "tiny", "outlier", "equal"])
def test_any_weights_and_importance_give_finite_weights(which: str) -> None:
    weights = {"zero": np.zeros((32, 32)), "tiny": 1e-30 * normal(32, 32), "outlier": normal(32, 32), "equal": np.full((32, 32), 0.5)}[which]
    weights = weights.astype(np.float32)
    if which == "outlier":
        weights[:, 0] *= 1e4
    for channels in (np.zeros((1, 32)), np.geomspace(1e-20, 1e20, 32)[None], np.full((1, 32), 1e30)):
        for name in ("INT2_R8", "SVD_R8"):
            found = decoded(weights, name, NEAREST, channels.astype(np.float32))
            assert np.isfinite(found).all()
            assert which != "zero" or not found.any()


def test_weights_that_are_not_finite_are_refused() -> None:
    weights = normal(16, 16)
    weights[3, 3] = np.nan
    with pytest.raises(ModelError) as caught:
        decoded(weights, "INT4_R8")
    sentence(caught.value, "must be finite")
