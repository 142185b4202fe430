"""llama.cpp's own converter of model folders to GGUF files, run as a program of its own.

What it writes is kept below the user's cache, under a name made of the contents of the folder and of the converter; deleting it costs a conversion.
It reads the folder alone: no network is used, and no code of the model is run.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bitwright.compress import dtypes_of
from bitwright.engines.llama_cpp.converter_package import SCRIPT, cache_folder, installed_converter, last_line
from bitwright.errors import ModelError
from bitwright.progress import Progress
from bitwright.whole_files import caching

_PROGRAM = Path(__file__).with_name("convert_program.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
#: dtypes of a folder's matrices → the type that keeps them all, in the order in which they are tried
_TYPES = (({"BF16"}, "bf16"), ({"F16"}, "f16"), ({"BF16", "F16", "F32", "F64"}, "f32"))
_ANY = "auto"
_SMALL = 1 << 26  # bytes of a file whose contents are part of its name; larger ones by size and times


@dataclass(frozen=True)
class Converter:
    """Converter of llama.cpp: its `script`, beside which its modules lie."""

    script: Path

    def convert(self, folder: Path, progress: Progress) -> Path:
        """Return the GGUF file of a model folder, from the cache where it was converted before.

        Raises:
            ModelError: the converter does not know the family, or fails; its last line says why.
            OutputError: the cache cannot be written.
        """
        kept = cache_folder() / "converted" / self._key(folder) / f"{folder.resolve().name}.gguf"
        if not kept.is_file():
            with progress.stage("Converting the model with llama.cpp's converter", 1) as advance, caching(kept) as part:
                self._run(folder, part)
                advance(1)
        return kept

    def _run(self, folder: Path, out: Path) -> None:
        command = [sys.executable, str(_PROGRAM), str(self.script), str(folder), "--outfile", str(out), "--outtype", float_type(folder)]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=os.environ | _OFFLINE)
        if ended.returncode or not out.is_file():
            raise ModelError(
                f"A model for llama.cpp must be one that its converter can convert; {self.script.name} cannot convert {folder} "
                f"({last_line(ended.stderr)}): give another converter as --converter, the model's GGUF file as --gguf, or choose another --target."
            )

    def _key(self, folder: Path) -> str:
        code = sorted(path for pattern in ("*.py", "conversion/*.py", "gguf/*.py", "gguf-py/gguf/*.py") for path in self.script.parent.glob(pattern))
        digest = hashlib.sha256(float_type(folder).encode())
        for text in (*_contents([_PROGRAM, *code]), *_contents(path for path in sorted(folder.iterdir()) if path.is_file())):
            digest.update(text)
        return digest.hexdigest()[:24]


def converter_named(path: str, progress: Progress) -> Converter:
    """Return the converter at `path`, a convert_hf_to_gguf.py or a checkout of llama.cpp; the installed one where it is empty.

    Raises:
        ModelError: there is none at `path`.
        LibraryError: it cannot be installed.
        OutputError: the cache cannot be written.
    """
    if not path:
        return Converter(installed_converter(progress))
    script = Path(path) / SCRIPT if Path(path).is_dir() else Path(path)
    if not script.is_file() or script.suffix != ".py":
        raise ModelError(f"A converter must be a {SCRIPT} of llama.cpp, or a checkout that has one; {path} is none: check the path.")
    return Converter(script)


def float_type(folder: Path) -> str:
    """Return the float type for the converter that loses nothing of the weights of a folder, dequantized, as it calls it."""
    found = dtypes_of(folder)
    return next((name for held, name in _TYPES if found <= held), _ANY)


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        about = path.stat()
        by_contents = about.st_size <= _SMALL and path.suffix != ".safetensors"
        what = hashlib.sha256(path.read_bytes()).hexdigest() if by_contents else f"{about.st_ino} {about.st_mtime_ns} {about.st_ctime_ns}"
        yield f"{path.name} {about.st_size} {what}\n".encode()
