"""The example package of `docs/extending.md` is installed and passes the contracts, in an environment that has it on its path."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "examples" / "plugin"
LINES_AT_MOST = 40


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a process that finds the installed example."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(PLUGIN)]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))}


def ran(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False, cwd=PLUGIN)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_part_of_the_example_passes_its_contract(environment: dict[str, str]) -> None:
    kinds = {path.stem for path in (PLUGIN / "bitwright_example").glob("[a-z]*.py")}
    assert {path.stem.removeprefix("test_") for path in (PLUGIN / "tests").glob("test_*.py")} == kinds
    assert " passed" in ran(environment, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(PLUGIN), str(PLUGIN / "tests"))


PROGRAM = """
import json
import sys
from pathlib import Path

import numpy as np

import bitwright as bw
from bitwright.compress import rounding_named
from bitwright.predictors import predictor_named
from bitwright.testing.tiny_models import tied_llama

few = {"n_calibration": 8, "n_held_out": 4, "sequence_length": 24}
named = bw.Settings("m", target="integers", sensitivity="stable-rank", codec="trim")
searched = bw.pipeline.search(
    bw.Settings(tied_llama().source.name, target="integer-nf4", formats=("INT8_G32", "NF4"), **few), Path(sys.argv[1], "run"), n_points=3
)
plan, _ = bw.plan(searched, bw.parse_budget("7bpw"))
fitted = bw.fit(bw.Settings(tied_llama().source.name, target="blocks", **few), bw.parse_budget("8bpw"), Path(sys.argv[1], "fit"))
blocks = {}
for tensor, form in fitted.plan.formats.items():
    blocks.setdefault(tensor.partition(".layers.")[2].partition(".")[0], set()).add(form)
print(json.dumps({
    "settings": named.to_json(),
    "method": bw.pipeline.method_named("annealing").source,
    "unit": bw.pipeline.named_objectives("total-variation")[0].unit,
    "classes": [type(rounding_named("trim", {})).__name__, type(predictor_named("power-law", None, np.ones((2, 2)), seed=0)).__name__],
    "searched": [plan.target, sorted(set(plan.formats.values())), searched.settings.to_json()],
    "fitted": [fitted.plan.target, fitted.check.broken, max(len(forms) for forms in blocks.values())],
}))
"""


@pytest.fixture(scope="module")
def used(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Output of one process that uses every part by its name, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("used")
    return json.loads(ran(environment, "-c", PROGRAM, str(folder)).splitlines()[-1]), folder


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
