"""The example package of `docs/extending.md` is installed and passes the contracts, in an environment that has it on its path."""

import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright as bw
from bitwright import plugins
from bitwright.compress import rounding_named
from bitwright.predictors import predictor_named
from bitwright.testing import strategy_contract
from bitwright.testing.tiny_models import tied_llama
from tests.processes import process
from tests.runs import BRIEF, UNSEARCHED
from tests.work import SILENCE_SECONDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "examples" / "plugin"
LINES_AT_MOST = 40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which the example is installed."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(PLUGIN)]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return site


@pytest.fixture
def on_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder from which this process imports the example, and a new one that runs what its contracts ask of another."""
    for name in [name for name in sys.modules if name.startswith("bitwright_example")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(site)
    strategy_contract.another_process.cache_clear()
    yield site
    strategy_contract.another_process.cache_clear()
    for name in [name for name in sys.modules if name.startswith("bitwright_example")]:
        del sys.modules[name]


class Passed:
    """Plugin of pytest that holds the names of the files whose tests passed, and where the example was imported from."""

    def __init__(self) -> None:
        self.files, self.imported_from = set[str](), ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.files.add(Path(report.fspath).stem)

    def pytest_sessionfinish(self) -> None:
        self.imported_from = str(sys.modules["bitwright_example"].__file__)


def test_every_part_of_the_example_passes_its_contract(on_path: Path) -> None:
    """Run its tests as its author would, but in this process, which has the imports done."""
    passed = Passed()
    without = [word for plugin in ("cacheprovider", "faulthandler", "xdist") for word in ("-p", f"no:{plugin}")]
    assert pytest.main([*without, "-o", "timeout=0", "--rootdir", str(PLUGIN), str(PLUGIN / "tests")], plugins=[passed]) == pytest.ExitCode.OK
    assert passed.files == {f"test_{path.stem}" for path in (PLUGIN / "bitwright_example").glob("[a-z]*.py")}
    assert Path(passed.imported_from).is_relative_to(on_path)


def use_every_part(tell: Connection, site: str, folder: str) -> None:
    """Use every part by its name, in a process that has the installed example on its path."""
    sys.path.insert(0, site)
    plugins._declared.cache_clear()  # what this process was forked from has looked for methods
    few = {"n_calibration": 8, "n_held_out": 4, "sequence_length": 24}
    model = tied_llama().source.name
    named = bw.Settings("m", target="integers", sensitivity="stable-rank", codec="trim")
    settings = bw.Settings(model, target="integer-nf4", formats=("INT8_G32", "NF4"), **few)
    searched = bw.pipeline.search(settings, Path(folder, "run"), n_points=3, by=UNSEARCHED)
    plan, _ = bw.plan(searched, bw.parse_budget("7bpw"))
    fitted = bw.fit(bw.Settings(model, target="blocks", **few), bw.parse_budget("8bpw"), Path(folder, "fit"), by=BRIEF)
    blocks: dict[str, set[str]] = {}
    for tensor, form in fitted.plan.formats.items():
        blocks.setdefault(tensor.partition(".layers.")[2].partition(".")[0], set()).add(form)
    tell.send(
        {
            "settings": named.to_json(),
            "method": bw.pipeline.method_named("annealing").source,
            "unit": bw.pipeline.named_objectives("total-variation")[0].unit,
            "classes": [type(rounding_named("trim", {})).__name__, type(predictor_named("power-law", None, np.ones((2, 2)), seed=0)).__name__],
            "searched": [plan.target, sorted(set(plan.formats.values())), searched.settings.to_json()],
            "fitted": [fitted.plan.target, [*fitted.check.broken], max(len(forms) for forms in blocks.values())],
        }
    )


@pytest.fixture(scope="module")
def used(site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Outcome of a process that uses every part by its name, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("used")
    with process(use_every_part, str(site), str(folder)) as using:
        found = next(using.news(SILENCE_SECONDS))
    return found, folder


def test_every_part_is_found_by_its_name(used: tuple[dict[str, Any], Path]) -> None:
    found, _ = used
    assert found["settings"].count("bitwright-example 0.1.0") == 2
    assert "Kirkpatrick" in found["method"]
    assert found["unit"] == "share"
    assert found["classes"] == ["Trim", "PowerLaw"]


def test_a_format_is_searched_with(used: tuple[dict[str, Any], Path]) -> None:
    target, formats, settings = used[0]["searched"]
    assert (target, formats) == ("integer-nf4", ["INT8_G32", "NF4"])
    assert '"target": "bitwright-example 0.1.0"' in settings


def test_a_model_is_fitted_for_an_engine(used: tuple[dict[str, Any], Path]) -> None:
    found, folder = used
    assert found["fitted"] == ["blocks", [], 1]
    assert (folder / "fit" / "model-blocks" / "config.json").is_file()


@pytest.mark.parametrize("path", sorted((PLUGIN / "bitwright_example").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_part_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_AT_MOST


def test_the_page_shows_the_code_of_the_files() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = [PLUGIN / "pyproject.toml", *sorted((PLUGIN / "bitwright_example").glob("[a-z]*.py")), *sorted((PLUGIN / "tests").glob("test_*.py"))]
    assert [path.name for path in files if path.read_text(encoding="utf-8") not in page] == []
