"""Formats whose codebooks each process waits seconds for libggml to prepare: what the files beside this one test of others, in one process."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import GgmlErrorFeedback
from bitwright.spaces import GGML_FORMATS, BlockFormat, Format
from bitwright.testing.codec_contract import CodecContract
from tests.compress.codecs import test_ggml as ggml
from tests.compress.codecs import test_ggml_codes as codes
from tests.compress.codecs import test_ggml_feedback as feedback

pytestmark = pytest.mark.slow

FORMATS = [form for form in GGML_FORMATS if form.name in ggml.SLOW]
FED_BACK = [form for form in FORMATS if form.name in ("IQ1_S", "IQ2_XXS")]
of_each = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


class TestGgml(CodecContract):
    codec = ggml.CODEC
    formats = tuple(FORMATS)
    worst = ggml.WORST


class TestErrorFeedbackWithoutMoments(CodecContract):
    codec = GgmlErrorFeedback({})
    formats = tuple(FED_BACK)
    worst = ggml.WORST


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=5)
def test_the_gguf_package_decodes_the_same(seed: int) -> None:
    ggml.require_decoded_alike(FORMATS, seed)


@of_each
def test_the_number_of_threads_changes_nothing(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    ggml.test_the_number_of_threads_changes_nothing(form, monkeypatch)


@of_each
def test_importance_helps_the_channels_that_matter(form: Format) -> None:
    ggml.test_importance_helps_the_channels_that_matter(form)


@of_each
def test_weights_that_share_their_bits_have_no_codes(form: BlockFormat) -> None:
    codes.test_weights_that_share_their_bits_have_no_codes(form)


@pytest.mark.parametrize("form", FED_BACK, ids=lambda form: form.name)
def test_the_layers_output_is_nearer_than_with_libggml_on_held_out_inputs(form: BlockFormat) -> None:
    feedback.test_the_layers_output_is_nearer_than_with_libggml_on_held_out_inputs(form)
