"""Runs with workers store the same and have the same plan, whatever their number, whoever does which task and in which order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.pipeline import verbs
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.run_space import price
from bitwright.pipeline.workers.workers import Workers
from bitwright.progress import Progress, Silent
from tests.fits import Fit
from tests.pipeline.workers.in_place import in_place
from tests.runs import BRIEF, plan_without_paths, rows, small

pytestmark = pytest.mark.slow

#: arrays that hold what was measured, by the beginnings of their names
_MEASURED = ("products/", "weight", "table", "second table", "size_bits", "offered")


def measured(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in rows(folder)["arrays"].items() if name.startswith(_MEASURED)}


def stored(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Every array, and the digests of all measurements, whatever order they were made in."""
    found = rows(folder)
    return found["arrays"], sorted(found["measurements"].values())


def use(monkeypatch: pytest.MonkeyPatch, n_workers: int, folder: Path) -> None:
    """Give every fit workers of this process."""

    @contextmanager
    def opened(_: object, settings: bw.Settings, __: Path, **___: Any) -> Iterator[Workers]:
        with in_place(n_workers, settings, folder) as workers:
            yield workers
            assert workers.n_done > 0
            assert all(bench.received_bytes > 0 for bench in workers.benches)

    monkeypatch.setattr(verbs, "workers_on", opened)


class Ending(Silent):
    """Progress of a driver that ends in the middle of a stage."""

    def __init__(self, title: str) -> None:
        self._title = title

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(n: int) -> None:
            if title == self._title and n:
                raise KeyboardInterrupt

        yield advance


def test_a_driver_that_ended_goes_on_with_other_workers(fit_of_folder: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n_workers, stage in ((2, "Measuring sensitivities by gradient"), (1, "Searching")):
        use(monkeypatch, n_workers, tmp_path / str(n_workers))
        with pytest.raises(KeyboardInterrupt):
            bw.fit(fit_of_folder.settings, fit_of_folder.budget, tmp_path / "out", by=BRIEF, progress=Ending(stage))
    use(monkeypatch, 3, tmp_path / "3")
    found = bw.fit(fit_of_folder.settings, fit_of_folder.budget, tmp_path / "out", by=BRIEF)
    assert stored(tmp_path / "out") == stored(fit_of_folder.folder)
    assert plan_without_paths(tmp_path / "out" / "plan.json") == plan_without_paths(fit_of_folder.folder / "plan.json")
    assert found.model.read_bytes() == fit_of_folder.fitted.model.read_bytes()


@pytest.mark.parametrize(("way", "n_workers"), [("streamed", 4), ("sampled", 1)])
def test_prices_of_workers_are_those_of_one_process(way: str, n_workers: int, llama_96: Path, tmp_path: Path) -> None:
    settings = replace(small(llama_96), stream=way == "streamed", price_rows="16" if way == "sampled" else "")
    progress: Progress = Silent()
    price(set_up(settings, tmp_path / "alone", device="cpu", progress=progress))
    with in_place(n_workers, settings, tmp_path) as workers:
        price(set_up(settings, tmp_path / "shared", device="cpu", progress=progress, workers=workers))
    assert measured(tmp_path / "shared") == measured(tmp_path / "alone")
    assert any(name.startswith("products/") for name in measured(tmp_path / "alone"))


def test_a_mixture_has_the_prices_of_one_process(tiny_mixtral: Path, tmp_path: Path) -> None:
    settings, progress = small(tiny_mixtral, target="native", formats=("INT8_G32", "INT4_G32")), Silent()
    price(set_up(settings, tmp_path / "alone", device="cpu", progress=progress))
    with in_place(2, settings, tmp_path) as workers:
        price(set_up(settings, tmp_path / "shared", device="cpu", progress=progress, workers=workers))
    assert measured(tmp_path / "shared") == measured(tmp_path / "alone")
