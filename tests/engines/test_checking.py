from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType

import bitwright as bw
from bitwright.compress import Floats, GgufSource, Source, open_source
from bitwright.engines import HEALTHY_NATS, N_CONTEXTS, Recipe, prefixes
from bitwright.engines.check_result import Mean
from bitwright.engines.llama_cpp.check import LlamaCppCheck, typical
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.errors import ModelError
from bitwright.spaces import Tensor
from tests.fits import Fit
from tests.sentences import sentence

pytestmark = pytest.mark.slow


class Retold(Source):
    """A file with some of its metadata changed, and its weights if so wanted."""

    def __init__(self, path: Path, **entries: Any) -> None:
        self._file = GgufSource(path)
        self.name, self.architecture, self.fingerprint = self._file.name, self._file.architecture, self._file.fingerprint
        self.tensors = self._file.tensors
        keys = {key.replace("__", "."): value for key, value in entries.items()}
        assert keys.keys() <= {entry.key for entry in self._file.metadata}
        self.metadata = tuple(replace(entry, value=keys.get(entry.key, entry.value)) for entry in self._file.metadata)

    def read(self, tensor: Tensor) -> Floats:
        return self._file.read(tensor)

    def stored(self, tensor: Tensor) -> np.ndarray:
        return self._file.stored(tensor)


def nothing(tensor: Tensor) -> np.ndarray:
    raise AssertionError(tensor)


def patched(path: Path, out: Path, *, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert len(old) == len(new)
    assert data.count(old) == 1
    out.write_bytes(data.replace(old, new))
    return out


@pytest.fixture
def verified(fit_of_gguf: Fit) -> Callable[[Path], Any]:
    return lambda path: bw.verify(fit_of_gguf.fitted.plan, path)


@pytest.fixture(scope="module")
def check_of() -> Callable[[Fit, Path], Any]:
    """`check_of(fit, path)` is the check of a file by the plan of a fit, made once."""
    return cache(lambda fit, path: bw.verify(fit.fitted.plan, path))


def test_a_built_file_keeps_all_promises(fit: Fit, check_of: Callable[[Fit, Path], Any]) -> None:
    found = check_of(fit, fit.fitted.model)
    assert found.broken == ()
    assert found.wrong_types == ()
    assert found.tokenizes_alike
    assert found.size_found == found.size_promised
    assert 0 <= found.engine_gap.nats_per_token <= found.allowed_gap
    assert found.in_torch.nats_per_token == pytest.approx(found.in_engine.nats_per_token, rel=0.3)
    assert found.in_torch.nats_per_token > 0.02 > found.engine_gap.nats_per_token
    assert [row[0] for row in found.rows][:4] == ["size", "tensor types", "KV cache types", "divergence from the original"]
    assert all(isinstance(cell, str) for row in found.rows for cell in row)
    assert found.generated.text


def test_the_original_s_gap_is_measured_on_quantized_weights(fit: Fit, gguf_256: Path, check_of: Callable[[Fit, Path], Any]) -> None:
    """A file of floats shows no rounding of activations, so a gap held against it would be unjust."""
    assert check_of(fit, fit.fitted.model).original_gap.nats_per_token > 1e-5
    assert check_of(fit, gguf_256).engine_gap.nats_per_token < 1e-3


def test_the_original_in_place_of_the_built_file_is_noticed(fit_of_gguf: Fit, gguf_256: Path, check_of: Callable[[Fit, Path], Any]) -> None:
    found = check_of(fit_of_gguf, gguf_256)
    assert found.size_found == gguf_256.stat().st_size
    assert len(found.wrong_types) == 16
    assert len(found.broken) == 2
    assert "bytes" in found.broken[0]
    assert found.wrong_types[0] in found.broken[1]
    assert found.in_torch.nats_per_token == pytest.approx(0, abs=1e-6)


def test_a_tensor_in_another_type_of_the_same_size_is_noticed(fit_of_gguf: Fit, verified: Callable[[Path], Any], tmp_path: Path) -> None:
    plan = fit_of_gguf.fitted.plan
    pairs = {"Q4_0": "IQ4_NL", "Q3_K": "IQ3_S"}
    name, form = next((name, form) for name, form in plan.formats.items() if form in pairs)
    tensor = next(tensor for tensor in GgufSource(fit_of_gguf.fitted.model).tensors if tensor.name == name)
    header = name.encode() + (2).to_bytes(4, "little") + b"".join(n.to_bytes(8, "little") for n in reversed(tensor.shape))
    old, new = (header + int(GGMLQuantizationType[kind]).to_bytes(4, "little") for kind in (form, pairs[form]))
    found = verified(patched(fit_of_gguf.fitted.model, tmp_path / "m.gguf", old=old, new=new))
    assert found.size_found == found.size_promised
    assert found.wrong_types == (name,)
    assert [sentence for sentence in found.broken if name in sentence]


def test_a_file_that_is_longer_is_noticed(fit_of_gguf: Fit, verified: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(fit_of_gguf.fitted.model.read_bytes() + bytes(32))
    (broken,) = verified(tmp_path / "m.gguf").broken
    assert f"{fit_of_gguf.fitted.plan.size_bytes + 32:,}" in broken


@pytest.mark.parametrize("n_bytes", [0, 100, 20_000, 500_000])
def test_a_file_that_is_cut_short_is_refused(fit_of_gguf: Fit, verified: Callable[[Path], Any], tmp_path: Path, n_bytes: int) -> None:
    (tmp_path / "m.gguf").write_bytes(fit_of_gguf.fitted.model.read_bytes()[:n_bytes])
    with pytest.raises(ModelError) as refused:
        verified(tmp_path / "m.gguf")
    sentence(refused.value, tmp_path / "m.gguf")


def test_an_engine_that_computes_something_else_is_noticed(fit_of_gguf: Fit, verified: Callable[[Path], Any], tmp_path: Path) -> None:
    """Weights as planned, but llama.cpp is told another base of the rotary embedding."""
    write_gguf(tmp_path / "m.gguf", Recipe(Retold(fit_of_gguf.fitted.model, llama__rope__freq_base=3.0), {}), nothing)
    found = verified(tmp_path / "m.gguf")
    assert (found.size_found, found.wrong_types) == (found.size_promised, ())
    (broken,) = found.broken
    assert "nats/token from torch" in broken
    assert found.engine_gap.nats_per_token > found.allowed_gap


def test_another_tokenizer_is_noticed(fit_of_gguf: Fit, verified: Callable[[Path], Any], tmp_path: Path) -> None:
    """Two letters change places in the vocabulary, so the same text becomes other ids."""
    words = next(list(entry.value) for entry in GgufSource(fit_of_gguf.fitted.model).metadata if entry.key == "tokenizer.ggml.tokens")
    o, e = words.index("o"), words.index("e")
    words[o], words[e] = words[e], words[o]
    write_gguf(tmp_path / "m.gguf", Recipe(Retold(fit_of_gguf.fitted.model, tokenizer__ggml__tokens=words), {}), nothing)
    (broken,) = verified(tmp_path / "m.gguf").broken
    assert "tokenizes" in broken


def test_the_file_of_another_model_is_refused(verified: Callable[[Path], Any], llama_96: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", Recipe(open_source(str(llama_96)), {}), nothing)
    with pytest.raises(ModelError) as refused:
        verified(tmp_path / "m.gguf")
    sentence(refused.value, tmp_path / "m.gguf", "token_embd.weight")


@pytest.mark.parametrize(("n_sequences", "n_lengths"), [(4, 4), (16, 4), (2, 8)])
def test_contexts_are_of_many_lengths_and_fit_the_engine(n_sequences: int, n_lengths: int) -> None:
    sequences = np.arange(n_sequences * 600).reshape(n_sequences, 600)
    found = prefixes(sequences, N_CONTEXTS)
    lengths = [len(context) for context in found]
    assert len(found) == N_CONTEXTS
    assert len(set(lengths)) == n_lengths
    assert min(lengths) >= 2
    assert max(lengths) <= 128
    assert len({tuple(context) for context in found}) == N_CONTEXTS
    for i, context in enumerate(found):
        assert context.tolist() == sequences[i % min(n_sequences, 4)][: len(context)].tolist()


def test_short_sequences_give_short_contexts() -> None:
    assert {len(context) for context in prefixes(np.zeros((2, 2), dtype=np.int64), 5)} == {2}


def test_what_is_allowed_does_not_grow_with_a_fault_of_the_original(fit_of_gguf: Fit) -> None:
    """An original on which torch and llama.cpp differ by 0.7 nats lets no file pass that does too."""
    healthy = fit_of_gguf.fitted.check
    assert isinstance(healthy, LlamaCppCheck)
    far = Mean(0.7, 0.01)
    faulty = replace(healthy, engine_gap=far, typical_gap=0.7, original_gap=far, steady_gap=0.7, steady_original_gap=0.7)
    assert faulty.allowed_gap == HEALTHY_NATS
    assert len(faulty.broken) == 2
    assert "with the original either" in faulty.broken[1]


def test_a_file_that_computes_what_it_should_passes_where_a_copy_in_8_bits_does_not(fit_of_gguf: Fit) -> None:
    healthy = fit_of_gguf.fitted.check
    assert isinstance(healthy, LlamaCppCheck)
    assert replace(healthy, original_gap=Mean(0.06, 0.01), steady_original_gap=0.06).broken == ()


def test_a_few_tokens_that_change_experts_are_noise_and_a_steady_gap_is_not(fit_of_gguf: Fit) -> None:
    healthy = fit_of_gguf.fitted.check
    assert isinstance(healthy, LlamaCppCheck)
    flips = replace(healthy, engine_gap=Mean(0.06, 0.05), typical_gap=0.06, original_gap=Mean(0.05, 0.05), steady_original_gap=0.001)
    assert flips.allowed_gap == pytest.approx(HEALTHY_NATS + 0.1)
    assert flips.broken == ()
    assert len(replace(flips, steady_gap=0.05).broken) == 1


def test_contexts_in_which_a_token_changes_experts_are_noise_of_a_mixture_alone() -> None:
    """Leave out at most two contexts of sixteen."""
    nats = np.full(16, 0.001)
    for n_far, of_mixture in ((1, 0.001), (2, 0.001), (3, (1.3 + 13 * 0.001) / 14)):
        nats[n_far - 1] = 1.3
        assert typical(nats, rerouted=True) == pytest.approx(of_mixture)
        assert typical(nats, rerouted=False) == pytest.approx(nats.mean())
    assert typical(nats[:4], rerouted=True) == pytest.approx(nats[:4].mean())
