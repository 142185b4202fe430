from pathlib import Path

import pytest

from bitwright.compress import GgufSource, TrialModel, TrialShape, trial_matrices
from bitwright.errors import UserError
from bitwright.pipeline import MachineProfile, profile_machine
from bitwright.pipeline.profiling import copying_bandwidth, time_trial
from bitwright.spaces import LLAMA_CPP, Latency, read_device

SMALL = TrialShape(2, width=256, feed_forward_width=512, n_heads=4, n_vocabulary=384)


def test_a_trial_model_loads_in_every_format(tmp_path: Path) -> None:
    source = TrialModel(SMALL, seed=0)
    names = [form.name for form in LLAMA_CPP.formats]
    formats = {tensor.name: names[i % len(names)] for i, tensor in enumerate(trial_matrices(source))}
    timed, prompt = time_trial(source, formats, tmp_path)
    assert prompt > 0
    built = GgufSource(tmp_path / "trial.gguf")
    assert {tensor.name: tensor.stored for tensor in trial_matrices(built)} == formats
    read = sum(built.stored(tensor).nbytes for tensor in trial_matrices(built) if tensor.name != "token_embd.weight")
    assert sum(timed.read_bytes.values()) == read


def test_a_profile_is_a_device(tmp_path: Path) -> None:
    made = MachineProfile(Latency({"Q8_0": 2e-10, "Q4_K": 1e-10}, 1e-5, 0.03), {"Q8_0": 0.01}, 1e10)
    (tmp_path / "here.toml").write_text(made.to_toml(), encoding="utf-8")
    found = read_device(str(tmp_path / "here.toml"))
    assert isinstance(found.latency, Latency)
    assert found.latency.seconds_per_byte == pytest.approx(made.latency.seconds_per_byte)
    assert found.bandwidth_bytes_per_second == 1e10


def test_what_cannot_be_timed_is_refused() -> None:
    with pytest.raises(UserError):
        profile_machine(["Q9_K"])


def test_copying_has_a_rate() -> None:
    assert 1e7 < copying_bandwidth(2**22) < 1e13
