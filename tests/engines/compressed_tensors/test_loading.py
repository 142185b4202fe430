"""Models that transformers treats in a way of its own while it loads what was packed: built, loaded by plain `from_pretrained`, and compared."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.engines import ENGINES
from bitwright.spaces import Tensor, discover
from bitwright.testing.engine_contract import built, check_of

TRANSFORMERS = ENGINES["transformers"]


def saved(family: str, words: Path, folder: Path, **settings: Any) -> str:
    """Write a random bfloat16 model of a family with the tokenizer of the folder `words`."""
    n_tokens = json.loads((words / "config.json").read_text("utf-8"))["vocab_size"]
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=n_tokens, **settings), dtype=torch.bfloat16)
    module.save_pretrained(folder)
    for file in (*words.glob("tokenizer*"), *words.glob("special*")):
        shutil.copy(file, folder)
    return str(folder)


@pytest.mark.slow
def test_layers_that_are_initialised_load_in_formats_that_keep_a_weight(llama_96: Path, tmp_path: Path) -> None:
    model = saved("falcon", llama_96, tmp_path / "falcon", hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    made = built(TRANSFORMERS, model, tmp_path, seed=0, menu=("FP8_ROW", "W8A8_ROW", "FP8A8_ROW"))
    assert {"FP8_ROW", "W8A8_ROW"} < set(made.formats.values())
    assert check_of(made, made.plan).broken == ()


@pytest.mark.parametrize(("menu", "offered"), [(("W4_G32",), {"F32", "F16", "BF16", "FP8_ROW"}), (("BF16", "FP8A8_ROW"), {"BF16", "FP8A8_ROW"})])
def test_they_are_offered_8_bits_in_place_of_packed_integers(menu: tuple[str, ...], offered: set[str]) -> None:
    units = discover([Tensor("h.0.dense.weight", (64, 64), "BF16", "dense", initialised=True), Tensor("h.0.up.weight", (64, 64), "BF16", "up")])
    space = TRANSFORMERS.target.space(units, menu=menu, fixed_bytes=0, n_weights=1)
    names = [{form.name for form, given in zip(space.formats, row, strict=True) if given} for row in space.offered]
    assert names == [offered, set(menu)]


@pytest.mark.slow
def test_a_model_whose_table_stays_wide_asks_to_be_loaded_in_float32(llama_96: Path, tmp_path: Path) -> None:
    model = saved("ctrl", llama_96, tmp_path / "ctrl", n_embd=32, dff=48, n_layer=1, n_head=2, n_positions=64)
    made = built(TRANSFORMERS, model, tmp_path, seed=0, menu=("W4_G32", "W8_ROW"))
    assert json.loads((made.path / "config.json").read_text("utf-8"))["dtype"] == "float32"
    assert check_of(made, made.plan).broken == ()
