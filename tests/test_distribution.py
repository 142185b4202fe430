"""The wheel and the sdist: they hold the package whole, and what is installed from either runs in an environment of its own."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def ran(*command: str | Path, cwd: Path) -> str:
    """Run a command, which must end well, and return what it prints."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and a wheel made of nothing but that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    ran(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as sdist:
        sdist.extractall(folder, filter="data")
    ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=next(path for path in folder.iterdir() if path.is_dir()))
    return folder


def test_the_wheel_holds_every_file_of_the_package(distributions: Path) -> None:
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("bitwright/")}
        metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    files = (path.relative_to(ROOT).as_posix() for path in (ROOT / "bitwright").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == set(files)
    assert "License-File: LICENSE" in metadata
    assert "://" not in metadata.split("\n\n")[0]


def test_what_is_installed_runs(distributions: Path, tmp_path: Path) -> None:
    """The new environment sees the packages of this one, but not its bitwright."""
    ran(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    wheel = next(distributions.glob("*.whl"))
    ran(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel, cwd=tmp_path)
    own = Path(ran(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path).strip())
    (own / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    where = ran(python, "-c", "import bitwright.devices.device as b; print(b.__file__, *b.profile_names())", cwd=tmp_path)
    assert where.startswith(str(own))
    assert "raspberry-pi-5-8gb" in where
    assert "auto" in ran(tmp_path / "venv" / "bin" / "bitwright", "methods", cwd=tmp_path)
