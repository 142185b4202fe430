"""A dozen of the families of `benchmarks/families`, fitted for transformers; all of them and every target: `python -m benchmarks.families`."""

from pathlib import Path

import pytest

from benchmarks.families.cells import Cell, cell
from benchmarks.families.declared import FAMILIES
from benchmarks.families.folders import entropy, write_folder
from benchmarks.families.matrix import Kept, run, table

#: what sets each apart
DOZEN = {
    "gpt-bigcode": "one head of keys and values",
    "gpt-neox": "fused q, k and v, partial rotary embedding",
    "gpt-oss": "transposed experts with biases, attention sinks",
    "phi3": "fused gate and up",
    "gemma2": "windows, soft caps, a tied head",
    "olmo2": "norms behind the matrices",
    "qwen3-next": "linear attention, shared experts",
    "mamba": "state spaces alone",
    "lfm2": "convolutions",
    "llama4-text": "transposed experts, chunks",
    "deepseek-v3": "latent attention, groups of experts",
    "qwen2-vl": "a wrapper",
}


#: what only packed modules have to do with: embeddings that count positions, and numbers without a dimension
NATIVE = ("opt", "apertus")


@pytest.mark.slow
@pytest.mark.parametrize("name", DOZEN)
def test_a_family_is_what_was_promised(name: str, tmp_path: Path) -> None:
    require_promised(name, "transformers", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
def test_a_family_is_what_was_promised_for_native(name: str, tmp_path: Path) -> None:
    require_promised(name, "native", tmp_path)


def require_promised(name: str, target: str, folder: Path) -> None:
    write_folder(FAMILIES[name], folder / name)
    found = cell(FAMILIES[name], target, str(folder / name))
    assert found.sentence == ""
    assert found.bytes_found == found.bytes_promised
    assert float(found.gap.split()[0]) < 0.001


def test_random_weights_predict_something(tmp_path: Path) -> None:
    write_folder(FAMILIES["llama"], tmp_path)
    assert 3 < entropy(FAMILIES["llama"], tmp_path) < 5  # in nats; 5.95 would be any token


def test_cells_that_were_kept_are_not_run_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "cells.jsonl")
    kept.add(Cell("llama", "transformers", "", 10, 10, "0.0000", 1.0))
    kept.add(Cell("gpt2", "transformers", "A model must be another."))
    again = Kept(tmp_path / "cells.jsonl")
    families = [FAMILIES["llama"], FAMILIES["gpt2"]]
    assert again.cells == kept.cells
    assert list(run(families, ["transformers"], tmp_path, again, None)) == []
    printed = table(families, again.cells)
    assert "| llama | `llama` |  | 10 bytes, 0.0000 |  |" in printed
    assert "| gpt2 | `gpt2` |  | no [1] |  |" in printed
    assert printed.endswith("1. A model must be another.")
