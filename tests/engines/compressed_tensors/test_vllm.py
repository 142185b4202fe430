"""vLLM in a process of its own: what is asked and answered, with a package in its place that computes with transformers, and with the real one.

The real one is asked where the environment names its Python: `BITWRIGHT_VLLM_PYTHON=…/bin/python pytest tests/objectives/test_vllm_engine.py`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import bitwright as bw
from bitwright.engines.compressed_tensors.vllm import in_vllm, python_of_vllm
from bitwright.errors import ModelError, UserError
from tests.sentences import sentence

CONTEXTS, PROMPT = [[1, 5, 9], [1, 5, 9, 100, 33]], [1, 7]
#: the part of vLLM's interface that the program uses; the logits are asked of this process, since importing torch in another takes seconds.
#: It fails as vLLM does where a folder holds no model
STANDING_IN = """
import os, types
from dataclasses import dataclass
from multiprocessing.connection import Client

import numpy as np

__version__ = "0.0"

@dataclass
class SamplingParams:
    max_tokens: int
    temperature: float
    detokenize: bool
    logprobs: int = 0

class LLM:
    def __init__(self, path, *, dtype, max_logprobs, skip_tokenizer_init, **others):
        assert dtype in ("float32", "bfloat16") and max_logprobs == -1 and skip_tokenizer_init
        if not os.path.isfile(os.path.join(path, "config.json")):
            raise OSError(f"{path} holds no model")
        with open(os.path.join(os.path.dirname(__file__), "address")) as address:
            self.torch = Client(address.read())
        self.torch.send(path)

    def generate(self, prompts, asked, use_tqdm):
        return [self.one(prompt["prompt_token_ids"], asked) for prompt in prompts]

    def logits(self, ids):
        self.torch.send(ids)
        return np.array(self.torch.recv())

    def one(self, ids, asked):
        written, rows = [], []
        for _ in range(asked.max_tokens):
            logits = self.logits(ids + written)
            rows.append((logits - np.logaddexp.reduce(logits)).tolist())
            written.append(int(logits.argmax()))
        named = [{i: types.SimpleNamespace(logprob=value) for i, value in reversed(list(enumerate(row)))} for row in rows]
        return types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=written, logprobs=named)])
"""
PLATFORM = "current_platform = type('Platform', (), {'is_cpu': staticmethod(lambda: True)})\n"


def answer_each(listener: Listener) -> None:
    """Answer one process after another with the logits of the next token; each names a folder, then contexts. One that names none is the last."""
    while True:
        with listener.accept() as engine, suppress(EOFError), torch.no_grad():
            if not (folder := engine.recv()):
                return
            module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            while True:
                engine.send(module(torch.tensor([engine.recv()])).logits[0, -1].tolist())


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[str]:
    """A Python whose vLLM is the package above."""
    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STANDING_IN)
    (package / "platforms.py").write_text(PLATFORM)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    with Listener(family="AF_UNIX") as listener:
        (package / "address").write_text(str(listener.address))
        answering = Thread(target=answer_each, args=(listener,), daemon=True)
        answering.start()
        yield str(program)
        with Client(listener.address) as last:
            last.send("")
        answering.join()


def in_torch(folder: Path) -> tuple[np.ndarray, list[int]]:
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        rows = [module(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy() for ids in CONTEXTS]
        written = module.generate(torch.tensor([PROMPT]), max_new_tokens=3, do_sample=False)[0, len(PROMPT) :].tolist()
    return np.stack(rows), written


@pytest.mark.slow
def test_what_the_engine_predicts_comes_back(stand_in: str, llama_gqa: Path) -> None:
    found = in_vllm(stand_in, llama_gqa, dtype="float32", contexts=CONTEXTS, prompt=PROMPT, n_tokens=3)
    rows, written = in_torch(llama_gqa)
    np.testing.assert_allclose(found.log_probabilities, rows, atol=1e-4)
    assert (found.version, found.written.tolist()) == ("0.0", written)


@pytest.mark.slow
def test_an_engine_that_refuses_is_quoted(stand_in: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError) as caught:
        in_vllm(stand_in, tmp_path / "empty", dtype="float32", contexts=CONTEXTS, prompt=PROMPT, n_tokens=3)
    assert sentence(caught.value, stand_in)
    with pytest.raises(ModelError) as caught:
        in_vllm(sys.executable, tmp_path / "empty", dtype="float32", contexts=CONTEXTS, prompt=PROMPT, n_tokens=3)
    assert "No module named 'vllm'" in str(caught.value)


def test_a_python_without_the_engine_is_named(stand_in: str, tmp_path: Path) -> None:
    assert python_of_vllm(stand_in) == stand_in
    assert python_of_vllm("") == ""
    (tmp_path / "text").write_text("no program")
    for other in (str(tmp_path / "none"), str(tmp_path / "text"), sys.executable, "/bin/false"):
        with pytest.raises(UserError) as caught:
            python_of_vllm(other)
        assert sentence(caught.value, other, "vLLM")


def test_a_fit_refuses_a_python_that_cannot_run_its_engine_before_any_work(llama_gqa: Path, tmp_path: Path) -> None:
    for target, python in (("llama.cpp", sys.executable), ("vllm", str(tmp_path / "python"))):
        with pytest.raises(UserError) as caught:
            bw.fit(bw.Settings(str(llama_gqa), target), bw.parse_budget("15bpw"), tmp_path / "run", engine_python=python)
        assert sentence(caught.value, "--engine-python")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_check_asks_the_engine_and_finds_a_broken_promise(stand_in: str, llama_gqa: Path, tmp_path: Path) -> None:
    settings = bw.Settings(str(llama_gqa), "vllm", ("FP8_ROW",), n_calibration=2, n_held_out=2, sequence_length=16, sensitivity="importance")
    fitted = bw.fit(settings, bw.parse_budget("15bpw"), tmp_path / "run", engine_python=stand_in)
    assert (fitted.check.engine, fitted.check.broken) == ("vllm 0.0", ())
    assert fitted.check.engine_gap.nats_per_token < 1e-4 < fitted.check.in_engine.nats_per_token
    assert fitted.check.written
    unrun = bw.verify(fitted.plan, fitted.model)
    assert "--engine-python" in {name: found for name, _, found in unrun.rows}["loaded and run by the engine"]
    other = Path(stand_in).parent / "packages" / "vllm" / "__init__.py"
    other.write_text(other.read_text().replace("= self.logits(", "= 1.2 * self.logits("))
    assert any("from torch with the same weights" in line for line in bw.verify(fitted.plan, fitted.model, engine_python=stand_in).broken)


@pytest.mark.skipif("BITWRIGHT_VLLM_PYTHON" not in os.environ, reason="BITWRIGHT_VLLM_PYTHON names no Python that has vLLM")
def test_vllm_itself_computes_what_torch_does(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64
    )
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config)
    module.save_pretrained(tmp_path / "model")
    found = in_vllm(os.environ["BITWRIGHT_VLLM_PYTHON"], tmp_path / "model", dtype="float32", contexts=CONTEXTS, prompt=PROMPT, n_tokens=3)
    rows, written = in_torch(tmp_path / "model")
    np.testing.assert_allclose(found.log_probabilities, rows, atol=1e-4)
    assert found.written.tolist() == written
