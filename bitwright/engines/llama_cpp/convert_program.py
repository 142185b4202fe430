"""Run as a program, never imported by the package: llama.cpp's converter, without any code that a model brings.

    python convert_program.py CONVERTER ARGUMENTS...

`CONVERTER` is a convert_hf_to_gguf.py. It asks transformers to trust code in the model's folder, which is never run here: a tokenizer with code of
its own is loaded as the class that transformers has, or not at all. It reads settings as transformers writes them, and version 5 renames some that
converters know by their names in `config.json` (`rotary_pct` of Pythia, the `layer_types` of Granite's hybrids); so those of the file are given back.
"""

import copy
import json
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

from transformers import AutoConfig, PreTrainedConfig, dynamic_module_utils

_REPLACED = vars(dynamic_module_utils)
_trust = _REPLACED["resolve_trust_remote_code"]
_read = AutoConfig.from_pretrained


def _distrust(asked: Any, *others: Any, **named: Any) -> Any:  # noqa: ARG001
    return _trust(False, *others, **named)


def _refuse(*arguments: Any, **named: Any) -> NoReturn:  # noqa: ARG001
    raise ValueError("it brings code of its own, which is not run")


def _read_with_names(folder: Any, *others: Any, **named: Any) -> Any:
    """Return the configuration of a folder; its `to_dict` has every entry of `config.json` as it stands there."""
    found, file = _read(folder, *others, **named), Path(folder) / "config.json"
    if isinstance(found, PreTrainedConfig) and file.is_file():
        whole = merged(found.to_dict(), json.loads(file.read_text(encoding="utf-8")))
        vars(found)["to_dict"] = lambda: copy.deepcopy(whole)
    return found


def merged(settings: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` with the entries of `stored` in their places, but for empty ones; entries with entries of their own are merged alike."""
    found = dict(settings)
    for key, value in stored.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        if both or value is not None:
            found[key] = merged(found[key], value) if both else value
    return found


def main(converter: str, *arguments: str) -> None:
    """Run the converter with the command line `arguments`; modules beside it are found first."""
    _REPLACED["resolve_trust_remote_code"], _REPLACED["get_cached_module_file"] = _distrust, _refuse
    AutoConfig.from_pretrained = _read_with_names  # type: ignore[assignment,method-assign]
    sys.path.insert(0, str(Path(converter).parent))
    sys.argv = [converter, *arguments]
    runpy.run_path(converter, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
