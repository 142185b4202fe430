"""Codes of ggml's blocks: the bits and levels found by decoding, against the layout of `ggml-common.h` and what libggml decodes."""

import numpy as np
import pytest

from bitwright.compress.codecs.ggml_codes import BlockCodes, ColumnRounder, block_codes
from bitwright.compress.models.gguf.libggml import dequantize, quantize
from bitwright.spaces import GGML_BY_NAME, GGML_FORMATS, BlockFormat
from tests.compress.codecs.test_ggml import SLOW

BLOCKS = [form for form in GGML_FORMATS if isinstance(form, BlockFormat) and form.block > 1]
GRIDS = [form for form in BLOCKS if not form.name.startswith(("IQ1", "IQ2", "IQ3"))]
CODEBOOKS = [form for form in BLOCKS if form not in GRIDS and form.name not in SLOW]


def found(form: BlockFormat) -> BlockCodes:
    codes = block_codes(form)
    assert codes is not None
    return codes


def nearest(codes: BlockCodes, packed: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `(n_blocks, block)` and levels `(block, n_blocks)` for `weights` `(block, n_blocks)`, rounded column after column."""
    rounder = ColumnRounder(codes, packed)
    levels = np.stack([rounder.rounded(i, column) for i, column in enumerate(weights)])
    return rounder.codes, levels


def packed_normal(form: BlockFormat, n_blocks: int, seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).normal(size=(n_blocks, form.block)).astype(np.float32)
    return quantize(weights, form, np.ones((1, form.block), dtype=np.float32)).reshape(n_blocks, -1)


@pytest.mark.parametrize("form", GRIDS, ids=lambda form: form.name)
def test_every_bit_of_a_block_is_of_one_code_or_of_the_scales(form: BlockFormat) -> None:
    codes = found(form)
    assert len(np.unique(codes.bits)) == codes.bits.size == form.block * codes.bits.shape[1]
    # no scale, minimum or sign of a scale is taken for a code: those take what is left of the block
    n_scale_bits = 8 * form.size_bytes((1, form.block)) - codes.bits.size
    per_block = {"Q8_0": 16, "Q4_0": 16, "Q5_0": 16, "IQ4_NL": 16, "Q4_1": 32, "Q5_1": 32, "Q4_K": 128, "Q5_K": 128}
    per_block |= {"Q6_K": 144, "Q3_K": 112, "Q2_K": 160, "IQ4_XS": 64}
    assert n_scale_bits == per_block[form.name]


@pytest.mark.parametrize("form", CODEBOOKS, ids=lambda form: form.name)
def test_weights_that_share_their_bits_have_no_codes(form: BlockFormat) -> None:
    assert block_codes(form) is None


@pytest.mark.parametrize("form", GRIDS, ids=lambda form: form.name)
def test_codes_read_and_written_again_are_the_same_bytes(form: BlockFormat) -> None:
    packed, codes = packed_normal(form, 5, seed=1), found(form)
    assert np.array_equal(codes.with_codes(packed, codes.codes_of(packed)), packed)


@pytest.mark.parametrize("form", GRIDS, ids=lambda form: form.name)
def test_the_level_of_a_code_is_what_libggml_decodes_and_the_nearest_of_all(form: BlockFormat) -> None:
    codes, packed = found(form), packed_normal(form, 3, seed=2)
    weights = np.random.default_rng(3).normal(size=(form.block, 3)).astype(np.float32)
    chosen, levels = nearest(codes, packed, weights)
    decoded = dequantize(codes.with_codes(packed, chosen).reshape(-1), form.name, (3, form.block)).T
    assert np.allclose(levels, decoded, rtol=1e-5, atol=1e-6)
    # every code, one after another, through libggml
    usable = [code for code in range(len(codes.levels)) if np.isfinite(codes.levels[code])]
    every = [
        dequantize(codes.with_codes(packed, np.full((3, form.block), code, dtype=np.uint8)).reshape(-1), form.name, (3, form.block)).T
        for code in usable
    ]
    assert np.allclose(np.abs(weights - decoded), np.abs(weights - np.stack(every)).min(axis=0), atol=1e-5)


def test_a_code_that_libggml_never_writes_is_never_chosen() -> None:
    codes = found(GGML_BY_NAME["Q8_0"])  # type: ignore[arg-type]
    assert np.flatnonzero(np.isnan(codes.levels)).tolist() == [128]  # -128 as an unsigned byte
    packed = packed_normal(GGML_BY_NAME["Q8_0"], 1, seed=4)  # type: ignore[arg-type]
    low, step = codes.grid(packed)
    chosen, _ = nearest(codes, packed, low + 1000 * step)  # far below all levels: steps go down from the code of zeros
    assert set(chosen.reshape(-1).tolist()) == {129}


def test_a_block_without_scale_keeps_its_zeros() -> None:
    form = GGML_BY_NAME["Q4_0"]
    codes = found(form)  # type: ignore[arg-type]
    _, levels = nearest(codes, np.zeros((1, form.size_bytes((1, 32))), dtype=np.uint8), np.ones((32, 1), dtype=np.float32))
    assert not levels.any()
