"""The matrix of families and targets: run cell by cell, kept as lines of JSON, printed as a table."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.families.cells import FORMATS, Cell, fitted
from benchmarks.families.family import Family
from benchmarks.families.gguf_file import convert
from bitwright.compress import join_name

TARGETS = tuple(FORMATS)


class Kept:
    """Cells that were run, a line of JSON each in `path`; a run that was interrupted goes on from them."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        self._path = path
        self.cells = {(cell.family, cell.target): cell for cell in (Cell(**json.loads(line)) for line in lines)}

    def add(self, cell: Cell) -> None:
        """Keep a cell."""
        self.cells[cell.family, cell.target] = cell
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(cell), ensure_ascii=False) + "\n")


def run(families: list[Family], targets: list[str], folders: Path, kept: Kept, converter: Path | None) -> Iterator[Cell]:
    """Fit each family in `folders` to each target that is not among those kept.

    For llama.cpp a folder is converted by the `converter` first, into the folder `gguf` beside them; where there is none, it is left to Bitwright.
    """
    for family in families:
        for target in targets:
            if (family.name, target) not in kept.cells:
                found = _run(family, target, folders, converter if target == "llama.cpp" else None)
                kept.add(found)
                yield found


def _run(family: Family, target: str, folders: Path, converter: Path | None) -> Cell:
    folder = folders / family.name
    if converter is None:
        return fitted(family, target, str(folder))
    file = folders / "gguf" / f"{family.name}.gguf"
    why = "" if file.is_file() else convert(folder, file, converter)
    return Cell(family.name, target, f"The converter: {why}") if why else fitted(family, target, join_name(str(folder), str(file)))


def table(families: list[Family], cells: dict[tuple[str, str], Cell]) -> str:
    """Return the matrix in Markdown, and below it the sentence of each cell that does not work."""
    counts = [sum(cell.works for cell in cells.values() if cell.target == target) for target in TARGETS]
    lines = [f"| family | model type | {' | '.join(TARGETS)} |", "|---|---|" + "---|" * len(TARGETS)]
    sentences: list[str] = []
    for family in families:
        row = []
        for target in TARGETS:
            cell = cells.get((family.name, target))
            if cell and not cell.works:
                if cell.sentence not in sentences:
                    sentences.append(cell.sentence)
                row.append(f"no [{sentences.index(cell.sentence) + 1}]")
            else:
                row.append(f"{cell.bytes_found:,} bytes, {cell.gap}" if cell else "")
        lines.append(f"| {family.name} | `{family.model_type}` | {' | '.join(row)} |")
    lines.append(f"| **{len(families)}** | | {' | '.join(f'**{count}**' for count in counts)} |")
    return "\n".join([*lines, "", *(f"{i}. {sentence}" for i, sentence in enumerate(sentences, 1))])
