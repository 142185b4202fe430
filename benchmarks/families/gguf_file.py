"""A family's folder as a GGUF file, by llama.cpp's own converter as Bitwright runs it, with the tokenizer entered; see `converter.py`."""

import os
import subprocess
import sys
from pathlib import Path

from bitwright.engines.llama_cpp import convert_program

_CONVERTER, _PROGRAM = Path(__file__).with_name("converter.py"), Path(convert_program.__file__)
_SECONDS = 300
#: transformers writes no layers that predict further tokens, and the converter wants them of some families if it is not told
_WAYS: tuple[tuple[str, ...], ...] = ((), ("--no-mtp",))


def convert(folder: Path, file: Path, converter: Path) -> str:
    """Write the model of `folder` to `file` by the converter in the folder `converter`; return its last line where it cannot, else nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    modules = os.pathsep.join([str(converter), str(converter / "gguf-py")])
    said = []
    for way in _WAYS:
        command = [sys.executable, str(_PROGRAM), str(_CONVERTER), str(folder), "--outfile", str(file), *way]
        ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": modules}, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if ran.returncode == 0 and file.is_file():
            return ""
        file.unlink(missing_ok=True)
        said.append(([line for line in ran.stderr.splitlines() if line.strip()] or ["it said nothing"])[-1].strip())
    return said[0]
