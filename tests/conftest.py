"""Fixtures of the session where tests run: of several processes the first only hands out the tests, and need not wait for torch to be loaded."""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# a property is not faulty for being slow on a machine that others share; whether examples are drawn at random is the environment's to say (CI)
settings.register_profile("some", settings.default, deadline=None, max_examples=25)
settings.register_profile("few", settings.get_profile("some"), max_examples=8)  # for `make test-fast`
settings.register_profile("many", settings.get_profile("some"), max_examples=500)  # for a night
settings.load_profile("some")

gc.disable()  # nothing that is imported or collected is garbage, and looking for it takes a tenth of that time


#: what takes long to make once: a process to fork others from, which has the imports done, and the syntax trees of all files; and whose tests need it
_SHARED = {
    "forks": ("tests.processes import", "tests.work import", "tests.campaign.ground import"),
    "syntax trees": ("tests.syntax_trees import",),
}


class FilesThatShare(LoadFileScheduling):
    """Scheduler that gives a file's tests to one process of pytest-xdist, and those of all files that share something dear to the same."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return _shared_by(self.config.rootpath / scope) or scope


@cache
def _shared_by(path: Path) -> str | None:
    text = path.read_text(encoding="utf-8")
    return next((name for name, imports in _SHARED.items() if any(each in text for each in imports)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesThatShare | None:
    """Return the scheduler for `--dist loadfile`, as the Makefile asks; others stay those of pytest-xdist."""
    return FilesThatShare(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for other processes more than it computes, so that no process of pytest-xdist waits alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_ray_workers.py")


def pytest_collection_finish() -> None:
    """Begin to look for garbage, among what the tests make, and seldom: looking as often as Python does takes a seventh of the tests' time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures in the workers of pytest-xdist, or in this process if there are none."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", 0):
        config.pluginmanager.import_plugin("tests.model_fixtures")
