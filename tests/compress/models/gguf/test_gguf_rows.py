"""Rows of a module's parameters, read from a GGUF file."""

from pathlib import Path

import pytest
import torch

from bitwright.compress import GgufSource, ParameterSlice, open_source
from bitwright.compress.models.gguf.gguf_rows import GgufRows
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.opening import open_checkpoint
from bitwright.engines import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf


@pytest.mark.parametrize("folder", ["llama_gqa", "tiny_mixtral"])
def test_any_rows_are_those_of_the_module(folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Read them in the module's order: llama.cpp pairs rows of q and k otherwise, and stacks gate on up apart."""
    name = str(request.getfixturevalue(folder))
    source, checkpoint = open_source(name), open_checkpoint(name)
    write_gguf(tmp_path / "m.gguf", Recipe(source, {}), source.stored)
    rows = GgufRows(GgufSource(tmp_path / "m.gguf"), checkpoint.skeleton)
    for parameter, weight in weights_of(checkpoint.module()).items():
        matrices = enumerate(weight) if weight.dim() == 3 else [(-1, weight)]
        for expert, matrix in matrices:
            n = len(matrix)
            for start, stop in ((0, n), (n // 3, n // 3 + 1), (n // 4, n - n // 4)):
                found = rows.rows(ParameterSlice(parameter, expert, range(start, stop)))
                assert torch.equal(found.reshape(stop - start, -1), matrix[start:stop].float().reshape(stop - start, -1)), parameter
