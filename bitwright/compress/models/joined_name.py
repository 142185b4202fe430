"""Names of models that are a folder and the way to its GGUF file: `FOLDER+WAY`.

The way is a GGUF file of the same model, or a converter of llama.cpp (its script, or a checkout that has it). A folder alone leaves it to Bitwright.
"""

import os
from pathlib import Path

from bitwright.errors import UserError

_JOIN, _GGUF = "+", ".gguf"


def join_name(folder: str, way: str) -> str:
    """Return the name of the model in `folder` whose GGUF file comes about by `way`; that of the folder where `way` is empty.

    >>> join_name("qwen", "qwen-f16.gguf")
    'qwen+qwen-f16.gguf'
    """
    return f"{folder}{_JOIN}{way}" if way else folder


def name_with(model: str, *, gguf: str, converter: str) -> str:
    """Return the name of the model called `model` with its GGUF file `gguf` or a `converter`, either empty for none.

    Raises:
        UserError: both are given, `model` is a GGUF file itself, or a path is none or of another kind.
    """
    way = gguf or converter
    if gguf and converter:
        raise UserError(f"A folder is converted, or comes with its GGUF file; both {gguf} and {converter} are given: give --gguf or --converter.")
    if way and model.endswith(_GGUF):
        raise UserError(f"A GGUF file or a converter goes with a model folder; {model} is a GGUF file itself: give the folder as MODEL.")
    if gguf and not (gguf.endswith(_GGUF) and Path(gguf).is_file()):
        raise UserError(f"What is given as --gguf must be the GGUF file of the folder; {gguf} is no GGUF file: check the path.")
    if converter and not Path(converter).exists():
        raise UserError(
            f"What is given as --converter must be a convert_hf_to_gguf.py or a checkout of llama.cpp; {converter} is not there: check the path."
        )
    return join_name(model, way)


def split_name(name: str) -> tuple[str, str]:
    """Split a name into that of the model and the way to its GGUF file, empty where it has none: the reverse of `join_name`."""
    for i in (i for i, letter in enumerate(name) if letter == _JOIN and not os.path.exists(name)):  # noqa: PTH110  it may be too long for a path
        if os.path.exists(name[i + 1 :]):  # noqa: PTH110
            return name[:i], name[i + 1 :]
    return name, ""


def absolute_name(name: str) -> str:
    """Return a name whose paths are absolute; a name of a hub stays as it is.

    >>> absolute_name("some/hub-name")
    'some/hub-name'
    """
    model, way = split_name(name)
    return join_name(str(Path(model).absolute()) if Path(model).exists() else model, str(Path(way).absolute()) if way else "")
