"""Compare the sizes of the published files, tensor by tensor, with this project's sizes of the same formats."""

from dataclasses import dataclass

from benchmarks.published_tables.tables import Published, is_mainline
from bitwright.spaces import GGML_BY_NAME


@dataclass(frozen=True)
class ByteMap:
    """Comparison of the files of a model.

    Tensors `compared` in mainline types, and how many of their sizes are `equal`; tensors `replaced` by another type than was asked for, and how many
    of them because their `rows` do not divide into blocks of the asked type.
    """

    compared: int
    equal: int
    replaced: int
    rows: int


def byte_map(model: Published) -> ByteMap:
    """Compare all tensors of all files of a model."""
    compared = equal = replaced = rows = 0
    for asked, tensors in model.files.items():
        for name, stored in tensors.items():
            if not is_mainline(stored.form):
                continue
            shape, form = model.shapes[name], GGML_BY_NAME[stored.form.upper()]
            compared += 1
            equal += form.fits(shape) and form.size_bytes(shape) == stored.size_bytes
            if len(shape) > 1 and is_mainline(asked) and stored.form.upper() not in (asked.upper(), "F32"):
                replaced += 1
                rows += not GGML_BY_NAME[asked.upper()].fits(shape)
    return ByteMap(compared, equal, replaced, rows)
