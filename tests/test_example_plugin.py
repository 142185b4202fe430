"""The example package of `docs/extending.md` is installed and passes the contracts, in an environment that has it on its path."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_every_part_is_found_by_its_name(environment: dict[str, str]) -> None:
    program = """
import numpy as np
import bitwright as bw
from bitwright.compress import rounding_named
from bitwright.predictors import predictor_named
settings = bw.Settings("m", target="integers", sensitivity="stable-rank", codec="trim")
print(settings.to_json())
print(bw.pipeline.method_named("annealing").source, bw.pipeline.named_objectives("total-variation")[0].unit)
print(type(rounding_named("trim", {})).__name__, type(predictor_named("power-law", None, np.ones((2, 2)), seed=0)).__name__)
"""
    found = ran(environment, "-c", program)
    assert found.count("bitwright-example 0.1.0") == 2
    assert "Kirkpatrick" in found
    assert "share" in found
    assert "Trim PowerLaw" in found


def test_a_format_is_searched_with(environment: dict[str, str], tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import bitwright as bw
from bitwright.testing.tiny_models import tied_llama
settings = bw.Settings(
    tied_llama().source.name, target="integer-nf4", formats=("INT8_G32", "NF4"), n_calibration=8, n_held_out=4, sequence_length=24
)
run = bw.pipeline.search(settings, Path(sys.argv[1]), n_points=3)
plan, _ = bw.plan(run, bw.parse_budget("7bpw"))
print(plan.target, sorted(set(plan.formats.values())), run.settings.to_json())
"""
    found = ran(environment, "-c", program, str(tmp_path / "run"))
    assert "integer-nf4 ['INT8_G32', 'NF4']" in found
    assert '"target": "bitwright-example 0.1.0"' in found


def test_a_model_is_fitted_for_an_engine(environment: dict[str, str], tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import bitwright as bw
from bitwright.testing.tiny_models import tied_llama
settings = bw.Settings(tied_llama().source.name, target="blocks", n_calibration=8, n_held_out=4, sequence_length=24)
fitted = bw.fit(settings, bw.parse_budget("8bpw"), Path(sys.argv[1]))
blocks = {}
for tensor, form in fitted.plan.formats.items():
    block = tensor.partition(".layers.")[2].partition(".")[0]
    blocks.setdefault(block, set()).add(form)
print(fitted.plan.target, fitted.check.broken, max(len(forms) for forms in blocks.values()))
"""
    assert "blocks () 1" in ran(environment, "-c", program, str(tmp_path / "fit"))
    assert (tmp_path / "fit" / "model-blocks" / "config.json").is_file()


@pytest.mark.parametrize("path", sorted((PLUGIN / "bitwright_example").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_part_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_AT_MOST


def test_the_page_shows_the_code_of_the_files() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = [PLUGIN / "pyproject.toml", *sorted((PLUGIN / "bitwright_example").glob("[a-z]*.py")), *sorted((PLUGIN / "tests").glob("test_*.py"))]
    assert [path.name for path in files if path.read_text(encoding="utf-8") not in page] == []
