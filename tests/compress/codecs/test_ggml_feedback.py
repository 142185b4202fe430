"""Error feedback on ggml's blocks: the algorithm in plain loops, what it gains on correlated inputs, and the contract of codecs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwright.compress import GgmlCodec, GgmlErrorFeedback
from bitwright.compress.codecs.rounding.feedback import factor
from bitwright.compress.codecs.rounding.gptq import as_stored
from bitwright.compress.models.gguf.libggml import dequantize, quantize
from bitwright.errors import ModelError
from bitwright.spaces import GGML_BY_NAME, GGML_FORMATS, BlockFormat
from bitwright.testing.codec_contract import CodecContract, normal
from tests.compress.codecs.test_ggml import SLOW, WORST
from tests.sentences import sentence

TENSOR, N_TOKENS = "blk.0.ffn_down.weight", 2000
BLOCKS = [form for form in GGML_FORMATS if isinstance(form, BlockFormat) and form.block > 1]
QUICK = [form for form in BLOCKS if form.name not in SLOW]


def inputs(n_columns: int, seed: int = 5) -> NDArray[np.float32]:
    """Correlated inputs `(n_tokens, n_columns)`, some channels much larger than others."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(N_TOKENS, n_columns)) @ (rng.normal(size=(n_columns, n_columns)) / np.sqrt(n_columns))
    return np.asarray((mixed + 0.3 * rng.normal(size=mixed.shape)) * rng.lognormal(size=n_columns), dtype=np.float32)


def output_error(change: NDArray[np.float32], x: NDArray[np.float32]) -> float:
    """Σ of squared changes of the layer's output."""
    return float(((x.astype(np.float64) @ change.T) ** 2).sum())


class TestWithoutMoments(CodecContract):
    codec = GgmlErrorFeedback({})
    formats = tuple(QUICK)
    worst = WORST


@pytest.mark.parametrize("form", QUICK, ids=lambda form: form.name)
def test_the_layers_output_is_nearer_than_with_libggml_on_held_out_inputs(form: BlockFormat) -> None:
    x, weights = inputs(512), normal(24, 512)
    seen, held_out = x[: N_TOKENS // 2], x[N_TOKENS // 2 :]
    channels = (seen**2).mean(axis=0)[None]
    codec = GgmlErrorFeedback({TENSOR: (seen.T @ seen)[None]}).for_tensor(TENSOR)
    change, plain = (c.decode(c.encode(weights, form, channels), form, weights.shape) - weights for c in (codec, GgmlCodec()))
    # a codebook's weights cannot answer each other within a block
    most = 0.97 if form.name.startswith("IQ") and not form.name.startswith("IQ4") else 0.9
    assert output_error(change, held_out) < most * output_error(plain, held_out)
    packed = codec.encode(weights, form, channels)
    assert packed.nbytes == form.size_bytes(weights.shape)
    assert np.array_equal(packed, codec.encode(weights, form, channels))


def plain_loops(weights: NDArray[np.float32], form: BlockFormat, x: NDArray[np.float32], shrinkage: float) -> NDArray[np.float32]:
    """GPTQ for Q4_0 in stored order, which subtracts errors by the inverse of the moments: eight levels below and seven above zero."""
    moments = (x.T @ x).astype(np.float64)
    t = factor(moments + shrinkage * x.shape[1] / len(x) * np.diag(np.diag(moments)), 0.01)
    w, found = weights.astype(np.float64), np.empty_like(weights)
    for start in range(0, w.shape[1], form.block):
        block = slice(start, start + form.block)
        remaining = np.diag(np.linalg.inv(t[block, block].T.astype(np.float64) @ t[block, block]))
        rows = np.ascontiguousarray(w[:, block], dtype=np.float32)
        packed = quantize(rows, form, np.ascontiguousarray((remaining / remaining.mean())[None], dtype=np.float32))
        scale = packed.reshape(len(w), -1)[:, :2].copy().view(np.float16).astype(np.float64)[:, 0]
        for i in range(start, start + form.block):
            found[:, i] = scale * np.clip(np.rint(w[:, i] / scale), -8, 7)
            w[:, i:] -= ((w[:, i] - found[:, i]) / t[i, i])[:, None] * t[i, i:]
    return found


def test_the_same_weights_as_plain_loops() -> None:
    form = GGML_BY_NAME["Q4_0"]
    assert isinstance(form, BlockFormat)
    x, weights = inputs(96), normal(20, 96)
    channels = (x**2).mean(axis=0)[None]
    codec = GgmlErrorFeedback({TENSOR: (x.T @ x)[None]}, order=as_stored, shrinkage=2.0).for_tensor(TENSOR)
    decoded = codec.decode(codec.encode(weights, form, channels), form, weights.shape)
    expected = plain_loops(weights, form, x, 2.0)
    # a tie may be broken otherwise by the last bit of a sum, after which the rest of the row differs
    assert (np.abs(decoded - expected).max(axis=1) < 1e-4).mean() >= 0.9


def test_more_tokens_are_believed_more() -> None:
    form, x, weights = GGML_BY_NAME["Q4_0"], inputs(64), normal(8, 64)
    channels = (x**2).mean(axis=0)[None]
    one, many = (GgmlErrorFeedback({TENSOR: n * (x.T @ x)[None]}).for_tensor(TENSOR) for n in (0.02, 1.0))
    errors = [output_error(c.decode(c.encode(weights, form, channels), form, weights.shape) - weights, x) for c in (many, one)]
    assert errors[0] < errors[1]


def test_channels_that_no_token_reached_keep_their_weights() -> None:
    form, x, weights = GGML_BY_NAME["Q8_0"], inputs(64), normal(8, 64)
    x[:, 3] = 0
    codec = GgmlErrorFeedback({TENSOR: (x.T @ x)[None]}).for_tensor(TENSOR)
    decoded = codec.decode(codec.encode(weights, form, (x**2).mean(axis=0)[None]), form, weights.shape)
    assert np.abs(decoded[:, 3] - weights[:, 3]).max() < 0.02


def test_moments_of_nothing_at_all() -> None:
    form, weights = GGML_BY_NAME["Q4_K"], normal(4, 256)
    codec = GgmlErrorFeedback({TENSOR: np.zeros((1, 256, 256), dtype=np.float32)}).for_tensor(TENSOR)
    decoded = codec.decode(codec.encode(weights, form, np.zeros((1, 256), dtype=np.float32)), form, weights.shape)
    assert ((decoded - weights) ** 2).sum() / (weights**2).sum() < WORST["Q4_K"]


def test_an_expert_that_no_token_reached_is_quantized_by_the_importance_of_the_others() -> None:
    form, x, weights = GGML_BY_NAME["Q4_K"], inputs(256), normal(4, 256)
    channels = (x**2).mean(axis=0)[None]
    codec = GgmlErrorFeedback({TENSOR: np.stack([x.T @ x, np.zeros((256, 256), dtype=np.float32)])}).for_tensor(TENSOR, 1)
    assert np.array_equal(codec.encode(weights, form, channels), GgmlCodec().encode(weights, form, channels))


def test_each_expert_by_its_own_moments() -> None:
    form, x, weights = GGML_BY_NAME["Q4_0"], inputs(64), normal(8, 64)
    channels = (x**2).mean(axis=0)[None]
    codec = GgmlErrorFeedback({TENSOR: np.stack([x.T @ x, np.diag((x**2).sum(axis=0))])})
    packed = [codec.for_tensor(TENSOR, expert).encode(weights, form, channels) for expert in (0, 1)]
    assert not np.array_equal(*packed)
    alone = GgmlErrorFeedback({TENSOR: (x.T @ x)[None]}).for_tensor(TENSOR)
    assert np.array_equal(packed[0], alone.encode(weights, form, channels))


def test_weights_that_are_not_finite_are_refused_in_a_sentence() -> None:
    weights = normal(4, 256)
    weights[1, 2] = np.nan
    codec = GgmlErrorFeedback({TENSOR: np.eye(256, dtype=np.float32)[None]}).for_tensor(TENSOR)
    with pytest.raises(ModelError) as refused:
        codec.encode(weights, GGML_BY_NAME["Q4_K"], np.ones((1, 256), dtype=np.float32))
    assert "must be finite" in sentence(refused.value)


def test_what_is_handed_on_never_leaves_the_range_of_the_format() -> None:
    form, x = GGML_BY_NAME["Q4_0"], inputs(64)
    weights = 6e4 * np.sign(normal(8, 64))
    codec = GgmlErrorFeedback({TENSOR: (x.T @ x)[None]}).for_tensor(TENSOR)
    packed = codec.encode(weights.astype(np.float32), form, (x**2).mean(axis=0)[None])
    assert np.isfinite(dequantize(packed, form.name, (8, 64))).all()
