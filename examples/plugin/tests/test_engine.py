import pytest
from bitwright_example.engine import BLOCKS

from bitwright.testing.engine_contract import CheckpointEngineContract
from bitwright.testing.tiny_models import tied_llama


class TestBlocks(CheckpointEngineContract):
    engine = BLOCKS

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> str:
        return tied_llama().source.name
