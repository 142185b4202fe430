"""Fixtures of the session where tests run: of several processes the first only hands out the tests, and need not wait for torch to be loaded."""

import os

import pytest
from hypothesis import settings

# a property is not faulty for being slow on a machine that others share; whether examples are drawn at random is the environment's to say (CI)
settings.register_profile("some", settings.default, deadline=None, max_examples=25)
settings.register_profile("few", settings.get_profile("some"), max_examples=8)  # for `make test-fast`
settings.register_profile("many", settings.get_profile("some"), max_examples=500)  # for a night
settings.load_profile("some")


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures in the workers of pytest-xdist, or in this process if there are none."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", 0):
        config.pluginmanager.import_plugin("tests.model_fixtures")
