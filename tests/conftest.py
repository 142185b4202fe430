"""Fixtures of the session where tests run: of several processes the first only hands out the tests, and need not wait for torch to be loaded."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures in the workers of pytest-xdist, or in this process if there are none."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", 0):
        config.pluginmanager.import_plugin("tests.model_fixtures")
