"""Run as a program, never imported by the package: llama.cpp's converter, without any code that a model brings.

    python convert_program.py CONVERTER ARGUMENTS...

`CONVERTER` is a convert_hf_to_gguf.py. It asks transformers to trust code in the model's folder, which is never run here: a tokenizer with code of
its own is loaded as the class that transformers has, or not at all.
"""

import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

from transformers import dynamic_module_utils

_REPLACED = vars(dynamic_module_utils)
_trust = _REPLACED["resolve_trust_remote_code"]


def _distrust(asked: Any, *others: Any, **named: Any) -> Any:  # noqa: ARG001
    return _trust(False, *others, **named)


def _refuse(*arguments: Any, **named: Any) -> NoReturn:  # noqa: ARG001
    raise ValueError("it brings code of its own, which is not run")


def main(converter: str, *arguments: str) -> None:
    """Run the converter with the command line `arguments`; modules beside it are found first."""
    _REPLACED["resolve_trust_remote_code"], _REPLACED["get_cached_module_file"] = _distrust, _refuse
    sys.path.insert(0, str(Path(converter).parent))
    sys.argv = [converter, *arguments]
    runpy.run_path(converter, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
