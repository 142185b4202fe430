"""Contract tests of codecs. Inherit from `CodecContract` and name the codec under test:

class TestMine(CodecContract):
    codec = MyCodec()
    formats = (MY_FORMAT,)
    worst = {"MINE": 0.01}
"""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.compress import Codec, Floats
from bitwright.errors import ModelError
from bitwright.spaces import Format
from bitwright.testing.sentences import sentence

few = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None, max_examples=5)


def normal(n_rows: int, n_columns: int, seed: int = 0) -> Floats:
    """Return weights `(n_rows, n_columns)` from a normal distribution."""
    return np.random.default_rng(seed).normal(size=(n_rows, n_columns)).astype(np.float32)


def importance(n_groups: int, n_columns: int, seed: int = 1) -> Floats:
    """Return importance `(n_groups, n_columns)` from a chi-squared distribution."""
    return np.random.default_rng(seed).chisquare(2, size=(n_groups, n_columns)).astype(np.float32)


def unknown(n_columns: int) -> Floats:
    """Return the importance of a matrix that has none."""
    return np.empty((0, n_columns), dtype=np.float32)


def relative_error(codec: Codec, weights: Floats, form: Format, channels: Floats) -> float:
    """Σ ΔW² / Σ W²."""
    change = codec.decode(codec.encode(weights, form, channels), form, weights.shape) - weights
    return float((change.astype(np.float64) ** 2).sum() / (weights.astype(np.float64) ** 2).sum())


class CodecContract:
    """Contract of codecs. `worst` bounds the relative squared error of each format on a matrix of normal weights, importance known."""

    codec: Codec
    formats: tuple[Format, ...]
    worst: Mapping[str, float]

    def columns(self, form: Format) -> int:
        """Return the length of a row of a few blocks."""
        return self.block(form) * max(1, 256 // self.block(form))

    def block(self, form: Format) -> int:
        """Return the length of the shortest row."""
        return next(n for n in range(1, 4097) if form.fits((1, n)))

    def test_normal_weights_come_back(self) -> None:
        """Require the error of normal weights to lie between that of an ideal code of the same rate and `worst`."""
        for form in self.formats:
            width = self.columns(form)
            error = relative_error(self.codec, normal(32, width), form, importance(1, width))
            # below 4^-bits is better than any code of that rate can do, and so a size or a measurement is wrong
            assert (4.0**-form.bits_per_weight if form.bits_per_weight < 16 else 0) <= error <= self.worst[form.name], form.name

    def test_weights_come_back_without_importance_where_none_is_needed(self) -> None:
        """Require formats that need no importance to work without any."""
        for form in self.formats:
            if not form.needs_importance:
                width = self.columns(form)
                assert relative_error(self.codec, normal(32, width), form, unknown(width)) <= 1.4 * self.worst[form.name], form.name

    @given(seed=st.integers(0, 99), n_rows=st.integers(1, 5), n_blocks=st.integers(1, 2))
    @few
    def test_bytes_have_the_size_of_the_format(self, seed: int, n_rows: int, n_blocks: int) -> None:
        """Require `encode` to return as many bytes as the format's size, and `decode` float32 weights of the shape."""
        for form in self.formats:
            shape = (n_rows, n_blocks * self.block(form))
            packed = self.codec.encode(normal(*shape, seed), form, importance(1, shape[1]))
            assert (str(packed.dtype), packed.shape) == ("uint8", (form.size_bytes(shape),))
            weights = self.codec.decode(packed, form, shape)
            assert (str(weights.dtype), weights.shape) == ("float32", shape)

    @given(seed=st.integers(0, 99), cut=st.integers(1, 5))
    @few
    def test_rows_are_packed_one_by_one(self, seed: int, cut: int) -> None:
        """Require the bytes and weights of a matrix to be those of its rows joined."""
        for form in self.formats:
            width = self.columns(form)
            weights, channels = normal(6, width, seed), importance(1, width, seed)
            whole = self.codec.encode(weights, form, channels)
            parts = [self.codec.encode(rows, form, channels) for rows in (weights[:cut], weights[cut:])]
            assert np.array_equal(whole, np.concatenate(parts)), form.name
            rows = [self.codec.decode(part, form, (len(part) // form.size_bytes((width,)), width)) for part in parts]
            assert np.array_equal(self.codec.decode(whole, form, weights.shape), np.concatenate(rows)), form.name

    def test_packs_the_same_twice_and_leaves_its_input_alone(self) -> None:
        """Require equal bytes for equal weights, and weights and importance left unchanged."""
        for form in self.formats:
            width = self.columns(form)
            weights, channels = normal(4, width), importance(1, width)
            before = weights.copy(), channels.copy()
            first, second = (self.codec.encode(weights, form, channels) for _ in range(2))
            assert np.array_equal(first, second), form.name
            assert np.array_equal(weights, before[0])
            assert np.array_equal(channels, before[1])

    def test_rows_need_not_lie_side_by_side(self) -> None:
        """Require equal bytes for weights that are not contiguous in memory."""
        for form in self.formats:
            width = self.columns(form)
            wide = normal(4, 2 * width)
            channels = importance(1, width)
            strided = self.codec.encode(wide[:, :width], form, channels)
            assert np.array_equal(strided, self.codec.encode(wide[:, :width].copy(), form, channels)), form.name

    @pytest.mark.parametrize("which", ["all", "all but one", "half", "tiny", "huge", "wide"])
    def test_any_importance_gives_finite_weights(self, which: str) -> None:
        """Require finite weights for extreme importances."""
        for form in self.formats:
            width = self.columns(form)
            channels = np.ones((1, width), dtype=np.float32)
            match which:
                case "all":
                    channels[:] = 0
                case "all but one":
                    channels[:, 1:] = 0
                case "half":
                    channels[:, : width // 2] = 0
                case "tiny":
                    channels *= np.float32(1e-40)
                case "huge":
                    channels *= np.float32(1e30)
                case "wide":
                    channels[:] = np.geomspace(1e-20, 1e20, width, dtype=np.float32)
            weights = normal(4, width)
            back = self.codec.decode(self.codec.encode(weights, form, channels), form, weights.shape)
            assert np.isfinite(back).all(), form.name
            if which in ("all", "tiny", "huge"):  # equal channels: nothing is known, and nothing may be lost
                assert relative_error(self.codec, weights, form, channels) <= 1.5 * self.worst[form.name], form.name

    def test_channels_that_no_token_reached_are_kept_too(self) -> None:
        """Require that channels without importance are not thrown away in whole blocks: other text may reach them."""
        for form in self.formats:
            width = self.columns(form)
            weights, channels = normal(16, 2 * width), np.ones((1, 2 * width), dtype=np.float32)
            channels[:, :width] = 0
            change = self.codec.decode(self.codec.encode(weights, form, channels), form, weights.shape) - weights
            assert (change[:, :width] ** 2).sum() / (weights[:, :width] ** 2).sum() <= 1.5 * self.worst[form.name], form.name

    @pytest.mark.parametrize("which", ["zero", "zero row", "zero half", "equal", "one", "outlier", "tiny"])
    def test_any_weights_give_finite_weights(self, which: str) -> None:
        """Require finite weights for extreme but finite weights, and zeros for rows of zeros."""
        for form in self.formats:
            width = self.columns(form)
            weights = normal(4, width)
            match which:
                case "zero":
                    weights[:] = 0
                case "zero row":
                    weights[1] = 0
                case "zero half":
                    weights[:, : width // 2] = 0
                case "equal":
                    weights[:] = 0.5
                case "one":
                    weights[:, 1:] = 0
                case "outlier":
                    weights[:, 0] *= 1e4
                case "tiny":
                    weights *= np.float32(1e-30)
            back = self.codec.decode(self.codec.encode(weights, form, importance(1, width)), form, weights.shape)
            assert np.isfinite(back).all(), form.name
            assert (back[(weights == 0).all(axis=1)] == 0).all(), form.name

    def test_a_group_of_zeros_changes_no_other_weights(self) -> None:
        """Require that other weights come back beside an eighth of a row that is zero, wherever it lies."""
        for form in self.formats:
            width = self.columns(form)
            for start in range(0, width, width // 8):
                weights = normal(16, width)
                weights[:, start : start + width // 8] = 0
                assert relative_error(self.codec, weights, form, importance(1, width)) <= 1.5 * self.worst[form.name], (form.name, start)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_weights_that_are_not_finite_are_refused(self, value: float) -> None:
        """Require a `ModelError` for infinite and undefined weights."""
        for form in self.formats:
            width = self.columns(form)
            weights = normal(3, width)
            weights[2, width - 1] = value
            with pytest.raises(ModelError) as caught:
                self.codec.encode(weights, form, importance(1, width))
            sentence(caught.value, "must be finite")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
    def test_importance_that_is_no_mean_square_is_refused(self, value: float) -> None:
        """Require a `ModelError` for negative, infinite and undefined importances."""
        for form in self.formats:
            width = self.columns(form)
            channels = importance(1, width)
            channels[0, 3 % width] = value
            with pytest.raises(ModelError) as caught:
                self.codec.encode(normal(2, width), form, channels)
            sentence(caught.value, "Importance must be finite")

    def test_weights_too_large_for_a_format_are_kept_or_refused(self) -> None:
        """Require that large weights are kept or refused: an engine that aborts takes the whole run with it."""
        for form in self.formats:
            width = self.columns(form)
            weights = normal(2, width) * np.float32(1e30)
            try:
                packed = self.codec.encode(weights, form, importance(1, width))
            except ModelError:
                continue
            assert np.isfinite(self.codec.decode(packed, form, weights.shape)).all(), form.name
