"""Finished runs on tiny models, made once a session. Whoever changes one works on a copy."""

from dataclasses import dataclass
from pathlib import Path

import pytest

import bitwright as bw
from bitwright.pipeline import Run
from bitwright.pipeline.verbs import Fitted
from bitwright.spaces import Budget
from tests.runs import small


@dataclass(frozen=True, eq=False)
class Fit:
    """What was asked for, and what came of it in `folder`."""

    settings: bw.Settings
    budget: Budget
    folder: Path
    fitted: Fitted


@pytest.fixture(scope="session")
def fit_of_folder(llama_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    return made(llama_256, tmp_path_factory.mktemp("fit") / "folder")


@pytest.fixture(scope="session")
def fit_of_gguf(gguf_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    return made(gguf_256, tmp_path_factory.mktemp("fit") / "gguf")


@pytest.fixture(params=["fit_of_folder", "fit_of_gguf"])
def fit(request: pytest.FixtureRequest) -> Fit:
    found: Fit = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def searched(llama_96: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search of a model whose rows only blocks of 32 fit."""
    return bw.pipeline.search(small(llama_96, formats=("Q8_0", "Q5_0", "Q4_0")), tmp_path_factory.mktemp("search") / "run", n_points=3)


def made(model: Path, folder: Path) -> Fit:
    settings, budget = small(model, formats=("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K")), bw.parse_budget("5bpw")
    return Fit(settings, budget, folder, bw.fit(settings, budget, folder))
