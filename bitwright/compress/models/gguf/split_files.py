"""GGUF files that are split into parts, as `llama-gguf-split` and llama.cpp's converter write them.

model-00001-of-00003.gguf   metadata, the number of this part and of all parts and tensors, and the first tensors
model-00002-of-00003.gguf   the numbers alone, and the next tensors
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.errors import ModelError, shown

SPLIT_KEYS = "split."
NUMBER, COUNT, N_TENSORS = "split.no", "split.count", "split.tensors.count"
AT_MOST = "split.bitwright.max_size"  # bytes of a part of a file that Bitwright wrote
_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def part_name(stem: str, number: int, count: int) -> str:
    """Return the name of a part as llama.cpp finds it, from its number, which counts from 0.

    >>> part_name("model", 0, 3)
    'model-00001-of-00003.gguf'
    """
    return f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"


def named_parts(path: Path) -> list[Path]:
    """Return the files of the split model of which `path` is a part by its name, the first one first; for another name the path alone."""
    name = _NAME.fullmatch(path.name)
    return [path.with_name(part_name(name[1], i, int(name[3]))) for i in range(int(name[3]))] if name else [path]


def parts_beside(path: Path) -> list[Path]:
    """Return the files that are there and have the names of parts of a model that would be `path` as one file."""
    if not path.parent.is_dir():
        return []
    found = {file: _NAME.fullmatch(file.name) for file in path.parent.iterdir()}
    return sorted(file for file, name in found.items() if name and name[1] == path.stem)


def parts_of(path: Path, said: Mapping[str, Any]) -> list[Path]:
    """Return the files that make up the model of which `path` is the first part, that one included; `said` is its metadata.

    Raises:
        ModelError: it is not the first part, its name is not that of a part, or another part is missing.
    """
    count = said.get(COUNT, 1)
    if count in (0, 1):
        return [path]
    name = _NAME.fullmatch(path.name)
    if not isinstance(count, int) or not name or int(name[3]) != count:
        wanted = part_name("NAME", 0, count) if isinstance(count, int) and 0 < count < 10**5 else "NAME-00001-of-00003.gguf"
        raise ModelError(
            f"Parts of a split GGUF file must be called {wanted} and on; split.count of {path} is {shown(count)}: give it back its name."
        )
    parts = [path.with_name(part_name(name[1], i, count)) for i in range(count)]
    if said.get(NUMBER) != 0 or path != parts[0]:
        raise ModelError(f"A split GGUF file is given by its first part; {path} is another: give {parts[0]}.")
    missing = [part for part in parts if not part.is_file()]
    if missing:
        raise ModelError(f"Every part of a split GGUF file must be there; {missing[0]} is missing ({len(missing)} of {count}): download it too.")
    return parts


def require_part(path: Path, said: Mapping[str, Any], *, number: int, first: Mapping[str, Any]) -> None:
    """Require that a file is the part of that `number` of the split file whose first part says `first`.

    Raises:
        ModelError: it is part of another file.
    """
    wanted = {NUMBER: number} | {key: first.get(key) for key in (COUNT, N_TENSORS)}
    wrong = next((key for key, value in wanted.items() if said.get(key) != value), "")
    if wrong:
        raise ModelError(
            f"The parts of a split GGUF file must be of one model; {path} has {wrong} {shown(said.get(wrong))} where {shown(wanted[wrong])} belongs: "
            "download them again."
        )
