"""Scores of the league's files, as llama.cpp tells them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.league import Contexts, distributions, rotated
from bitwright.compress import open_source


def test_a_file_is_as_its_own_original(gguf_96: Path) -> None:
    n_vocabulary = next(tensor.shape[0] for tensor in open_source(str(gguf_96)).tensors if tensor.name == "token_embd.weight")
    contexts = [np.array([5, 6, 7]), np.array([5, 6, 7, 8, 9])]
    original = distributions(gguf_96, contexts, np.zeros((len(contexts), n_vocabulary)))
    np.testing.assert_allclose(np.exp(original).sum(axis=1), 1, rtol=1e-4)
    found = Contexts(contexts, np.array([8, 10]), original).scores(gguf_96)
    assert found["nats"] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert found["agrees"] == [1.0, 1.0]
    assert found["surprise"] == pytest.approx([-original[0, 8], -original[1, 10]], abs=1e-6)


def test_seeds_have_other_calibration_text_of_the_same_parts(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    for between in ("<|endoftext|>", "\n"):
        parts = [f"part {i}" for i in range(50)]
        text.write_text(between.join(parts), encoding="utf-8")
        assert rotated(text, 0, tmp_path) == text
        found = [rotated(text, seed, tmp_path).read_text(encoding="utf-8").split(between) for seed in (1, 2)]
        assert found[0] != found[1]
        assert all(sorted(of) == sorted(parts) != of != parts for of in found)
