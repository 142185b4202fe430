"""transformers and vLLM held to the contracts of engines, reloads and layouts."""

from pathlib import Path

import pytest

from bitwright.engines import ENGINES
from bitwright.engines.compressed_tensors.layout import CompressedTensors
from bitwright.engines.compressed_tensors.target import VLLM, packed
from bitwright.testing.engine_contract import CheckpointEngineContract, LayoutContract


@pytest.mark.slow
class TestTransformers(CheckpointEngineContract):
    engine = ENGINES["transformers"]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, llama_256: Path) -> str:
        return str(llama_256)


@pytest.mark.slow
class TestVllm(CheckpointEngineContract):
    """Unpacked by the package that vLLM uses where no vLLM is at hand."""

    engine = ENGINES["vllm"]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, llama_256: Path) -> str:
        return str(llama_256)


class TestLayout(LayoutContract):
    layout = CompressedTensors(VLLM.formats)
    formats = tuple(form for form in VLLM.formats if packed(form))
