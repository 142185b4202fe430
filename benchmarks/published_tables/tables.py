"""Read published tables of divergences: measured by Thireus, GGUF Tool Suite and its contributors (github.com/Thireus/GGUF-Tool-Suite).

A folder for each model: `kld_by_tensor.csv`, a row for one or more types, the divergence of the whole model when one tensor alone has that type;
`kld_whole_model.csv`, the divergence with all tensors in one type; `tensors.csv.gz`, every tensor, its shape with the row length first, and for
some types the type really used and its bytes. 404 and 0 mean "not measured"; a type that repacks another (`_r4`, `_r8`) is no type of its own.
"""

import csv
import gzip
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from bitwright.errors import UserError
from bitwright.spaces import GGML_BY_NAME

_NOT_MEASURED = (404.0, 0.0)
_REPACKED = re.compile(r"_r\d+$", re.IGNORECASE)
_TERNARY = "_bn"  # for models trained with ternary weights; anything else collapses
_COLUMNS_BEFORE_TYPES = 3

#: types of mainline llama.cpp, from the finest, as the tables spell them
MAINLINE = (
    *("q8_0", "q6_K", "q5_K", "q5_1", "q5_0", "q4_K", "q4_1", "q4_0", "iq4_nl", "iq4_xs"),
    *("q3_K", "iq3_s", "iq3_xxs", "q2_K", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"),
)


@dataclass(frozen=True)
class Stored:
    """Type of a tensor in a file, and its bytes."""

    form: str
    size_bytes: int


@dataclass(frozen=True, eq=False)
class Published:
    """Tables of a model: `whole` type → nats/token; `singles` tensor → nats/token of that tensor alone in type `reference`; `shapes` of all
    tensors, the row length last; `files` asked type → tensor → what it is stored as.
    """

    name: str
    whole: dict[str, float]
    reference: str
    singles: dict[str, float]
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, dict[str, Stored]]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return 1 + max(layer_of(name) for name in self.shapes)

    @property
    def n_weights(self) -> int:
        """Number of weights of the matrices."""
        return sum(prod(shape) for shape in self.shapes.values() if len(shape) > 1)

    @property
    def roles(self) -> frozenset[str]:
        """Roles of the matrices."""
        return frozenset(role_within(name) for name, shape in self.shapes.items() if len(shape) > 1)


def layer_of(name: str) -> int:
    """Parse the index of a tensor's block, -1 outside the blocks."""
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def role_within(name: str) -> str:
    """Return a tensor's name without its block: `attn_q.weight` for `blk.3.attn_q.weight`."""
    return re.sub(r"^blk\.\d+\.", "", name)


def of_its_own(form: str) -> str:
    """Return the type that `form` repacks, or `form` itself."""
    return _REPACKED.sub("", form)


def read_tables(folder: Path) -> tuple[Published, ...]:
    """Read the tables of all models in `folder`, by name.

    Raises:
        UserError: the folder has no such tables, or a table has no measured row.
    """
    paths = sorted(path.parent for path in folder.glob("*/kld_whole_model.csv"))
    if not paths:
        raise UserError(f"Published tables are folders with a kld_whole_model.csv, and {folder} has none: give the folder that holds them.")
    return tuple(_read(path) for path in paths)


def _read(folder: Path) -> Published:
    with (folder / "kld_whole_model.csv").open(encoding="utf-8", newline="") as file:
        whole = _measured(dict(row[:2] for row in csv.reader(file)))
    with (folder / "kld_by_tensor.csv").open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    usual = [row for row in rows if not row[0].endswith(_TERNARY)]
    if not usual:
        raise UserError(f"A table of single tensors must have a row of a usual type, and {folder / 'kld_by_tensor.csv'} has none: leave it out.")
    with gzip.open(folder / "tensors.csv.gz", "rt", encoding="utf-8", newline="") as file:
        head, *tensors = csv.reader(file)
    shapes = {row[0]: tuple(int(length) for length in reversed(row[1].split("x"))) for row in tensors}
    asked = head[_COLUMNS_BEFORE_TYPES:]
    files = {form: {row[0]: _stored(row[_COLUMNS_BEFORE_TYPES + i]) for row in tensors} for i, form in enumerate(asked)}
    singles = _measured(dict(zip(names[1:], usual[0][1:], strict=True)))
    return Published(folder.name, whole, usual[0][0], singles, shapes, files)


def _measured(values: dict[str, str]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values.items() if re.fullmatch(r"[\d.eE+-]+", value)}
    return {name: value for name, value in numbers.items() if value not in _NOT_MEASURED}


def _stored(cell: str) -> Stored:
    form, size_bytes = cell.split(":")
    return Stored(form, int(size_bytes))


def curve_types(models: tuple[Published, ...]) -> tuple[str, ...]:
    """Return the types that were measured on whole models, without repacked ones."""
    return tuple(sorted({form for model in models for form in model.whole if form == of_its_own(form)}))


def is_mainline(form: str) -> bool:
    """Return whether mainline llama.cpp stores `form`, floats included."""
    return form.upper() in GGML_BY_NAME
