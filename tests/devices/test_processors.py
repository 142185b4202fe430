"""Processors and threads: words are read alike everywhere, idle processors are counted among those that the process may use."""

import os
from pathlib import Path

import psutil
import pytest

from bitwright.devices import parse_threads, processors, thread_words
from bitwright.devices.processors import free_processors, n_threads
from bitwright.errors import UserError
from tests.sentences import sentence


def looked(busy: list[float]) -> object:
    return lambda interval, percpu: busy


def test_threads_are_numbers_all_or_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_threads("1, 3,1") == (1, 3)
    assert parse_threads("all") == (processors(),)
    monkeypatch.setattr(psutil, "cpu_percent", looked([100.0] * 256))
    assert parse_threads("free") == (1,)
    for wrong in ("many", "", "-1"):
        with pytest.raises(UserError) as refused:
            thread_words(wrong)
        sentence(refused.value, wrong)


@pytest.mark.parametrize(
    ("busy", "allowed", "expected"),
    [
        ([0, 0, 0, 0], {0, 1, 2, 3}, 4),
        ([100, 0, 0, 55], {0, 1, 2, 3}, 2),  # 2.45 of them
        ([100, 100, 100, 100], {0, 1, 2, 3}, 1),
        ([0, 0, 90, 95], {2, 3}, 1),  # others are idle, which this process may not use
        ([100, 100, 5, 3], {2, 3}, 2),
    ],
)
def test_free_are_the_idle_ones_that_it_may_use(
    busy: list[float], allowed: set[int], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", looked(busy))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    assert free_processors(tmp_path / "none") == expected


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("garbage", 4)])
def test_a_control_group_lends_as_many_as_it_says(quota: str, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", looked([0.0] * 4))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert free_processors(tmp_path / "cpu.max") == expected


def test_numbers_are_themselves() -> None:
    assert n_threads("7") == 7
