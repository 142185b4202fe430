"""Exact size of a model of which only a structure is kept."""

from collections.abc import Mapping
from pathlib import Path

from bitwright.compress import Source
from bitwright.engines import Engine
from bitwright.spaces import GGML_BY_NAME, Structure


def structured_bytes(engine: Engine, source: Source, structure: Structure, formats: Mapping[str, str], scratch: Path) -> int:
    """Return the bytes of the file of a structure of `source`, whose tensors have the `formats` (tensor of the whole model → format).

    The header is written to the folder `scratch`, and removed.

    Raises:
        OutputError: the folder cannot be written.
    """
    kept = engine.narrowed(source, structure)
    named = kept.renamed(formats)
    fixed = engine.container(source.name).fixed_bytes(kept, named, scratch)
    shapes = {tensor.name: tensor.shape for tensor in kept.tensors}
    return fixed + sum(engine.target.stored_bytes(shapes[name], GGML_BY_NAME[form]) for name, form in named.items())
