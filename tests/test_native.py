"""Importing `bitwright.native` lets transformers load native checkpoints."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.compress import tiny_models as tiny
from tests.compress.native_folders import write_native

PROGRAM = """
import sys
import bitwright
import bitwright.native
from transformers import AutoModelForCausalLM
print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1]).model.layers[0].self_attn.q_proj).__name__)
"""


@pytest.mark.slow
def test_one_import_is_enough(tmp_path: Path) -> None:
    model_type, settings, _ = tiny.FAMILIES["llama-tied"]
    write_native(tiny.module(model_type, settings, dtype=torch.float32), tmp_path)
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "PackedLinear"
