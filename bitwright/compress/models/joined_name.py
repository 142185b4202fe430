"""Names of models that are a folder and the way to its GGUF file: `FOLDER+WAY`.

The way is a GGUF file of the same model, or a converter of llama.cpp (its script, or a checkout that has it). A folder alone leaves it to Bitwright.
"""

import os
from pathlib import Path

_JOIN = "+"


def join_name(folder: str, way: str) -> str:
    """Return the name of the model in `folder` whose GGUF file comes about by `way`; that of the folder where `way` is empty.

    >>> join_name("qwen", "qwen-f16.gguf")
    'qwen+qwen-f16.gguf'
    """
    return f"{folder}{_JOIN}{way}" if way else folder


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
