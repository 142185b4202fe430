"""Native checkpoints held to the contracts of engines, reloads and layouts."""

from pathlib import Path

import pytest

from bitwright.engines import ENGINES
from bitwright.engines.native.layout import NativeLayout
from bitwright.spaces import NATIVE_FORMATS, BlockFormat
from bitwright.testing.engine_contract import CheckpointEngineContract, LayoutContract


@pytest.mark.slow
class TestNative(CheckpointEngineContract):
    engine = ENGINES["native"]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tiny_mixtral: Path) -> str:
        return str(tiny_mixtral)


class TestLayout(LayoutContract):
    layout = NativeLayout()
    formats = tuple(form for form in NATIVE_FORMATS if form.fits(LayoutContract.shape) and not isinstance(form, BlockFormat))
