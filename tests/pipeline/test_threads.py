"""Threads of a run: what is asked for is set and kept, and a run that counted idle processors keeps their number."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

import bitwright as bw
from bitwright.devices import processors
from bitwright.errors import UserError
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.workers.cluster import Cluster
from bitwright.pipeline.workers.opening import workers_on
from bitwright.progress import Progress, Silent
from tests.runs import small
from tests.sentences import sentence


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Notes(Silent):
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, sentence: str) -> None:
        self.said.append(sentence)


def begun(llama: Path, folder: Path, progress: Progress, threads: str = "") -> int:
    set_up(small(llama, threads=threads), folder, device="cpu", progress=progress).store.close()
    return torch.get_num_threads()


def test_a_run_has_the_threads_that_it_is_given_and_keeps_them(llama_tied: Path, tmp_path: Path) -> None:
    usual = torch.get_num_threads()
    assert begun(llama_tied, tmp_path / "usual", Silent()) == usual
    assert begun(llama_tied, tmp_path / "one", Silent(), "1") == 1
    torch.set_num_threads(usual)
    notes = Notes()
    assert begun(llama_tied, tmp_path / "one", notes) == 1
    assert "as the run began with" in notes.said[0]
    assert begun(llama_tied, tmp_path / "one", Silent(), "all") == processors()
    assert begun(llama_tied, tmp_path / "one", Silent()) == processors()
    assert begun(llama_tied, tmp_path / "many", Silent(), "4096") == processors()


def test_free_counts_once_and_says_so(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: [100.0] * 256)
    notes = Notes()
    assert begun(llama_tied, tmp_path, notes, "free") == 1
    assert f"1 of {processors()} processors" in notes.said[0]
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: [0.0] * 256)
    assert begun(llama_tied, tmp_path, notes, "free") == 1
    assert "as the run began with" in notes.said[-1]


@pytest.mark.parametrize("words", ["many", "1,2", "0"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(UserError) as caught:
        bw.Settings("model", threads=words)
    sentence(caught.value, words.split(",")[0])


def test_workers_have_a_number_of_threads(llama_tied: Path, tmp_path: Path) -> None:
    opening = workers_on(Cluster("auto"), small(llama_tied, threads="free"), tmp_path, device="cpu", progress=Silent())
    with pytest.raises(UserError) as caught, opening:
        pass
    sentence(caught.value, "free")
