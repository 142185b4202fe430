"""Session fixture: a finished search of a tiny model. A test that changes it works on a copy."""

from pathlib import Path

import pytest

import bitwright as bw
from bitwright.pipeline import Run
from tests.runs import BRIEF, small


@pytest.fixture(scope="session")
def searched(llama_96: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search of a model whose rows only blocks of 32 fit."""
    return bw.pipeline.search(small(llama_96, formats=("Q8_0", "Q5_0", "Q4_0")), tmp_path_factory.mktemp("search") / "run", n_points=3, by=BRIEF)
