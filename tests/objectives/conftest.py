"""Tiny models, loaded once a session. No test may leave their weights changed."""

from pathlib import Path

import pytest

from bitwright.compress import Model, load


@pytest.fixture(scope="session")
def dense(llama_256: Path) -> Model:
    return load(str(llama_256))


@pytest.fixture(scope="session")
def tied(llama_tied: Path) -> Model:
    return load(str(llama_tied))


@pytest.fixture(scope="session")
def mixtral(tiny_mixtral: Path) -> Model:
    return load(str(tiny_mixtral))
