from pathlib import Path

import pytest

from bitwright.compress import GgufSource, TrialModel, TrialShape, trial_matrices
from bitwright.errors import DeviceError, UserError
from bitwright.objectives import package_energy
from bitwright.pipeline import MachineProfile, parse_threads, profile_machine
from bitwright.pipeline.profiling import TimedThreads, copying_bandwidth, processors, time_trial, written_trial
from bitwright.spaces import LLAMA_CPP, Latency, PowerUnknown, read_device
from tests.sentences import sentence

SMALL = TrialShape(2, width=256, feed_forward_width=512, n_heads=4, n_vocabulary=384)


def test_a_trial_model_loads_in_every_format(tmp_path: Path) -> None:
    source = TrialModel(SMALL, seed=0)
    names = [form.name for form in LLAMA_CPP.formats]
    formats = {tensor.name: names[i % len(names)] for i, tensor in enumerate(trial_matrices(source))}
    path = written_trial(source, formats, tmp_path)
    trial = time_trial(path, source, formats, n_threads=1, energy=package_energy(tmp_path))
    timed = trial.timed
    assert trial.seconds_per_prompt_token > 0
    assert trial.seconds > 0
    assert trial.joules == 0
    built = GgufSource(tmp_path / "trial.gguf")
    assert {tensor.name: tensor.stored for tensor in trial_matrices(built)} == formats
    read = sum(built.stored(tensor).nbytes for tensor in trial_matrices(built) if tensor.name != "token_embd.weight")
    assert sum(timed.read_bytes.values()) == read


def test_a_profile_is_a_device_for_each_number_of_threads(tmp_path: Path) -> None:
    one = TimedThreads(Latency({"Q8_0": 2e-10, "Q4_K": 1e-10}, 1e-5, 0.03), {"Q8_0": 0.01})
    four = TimedThreads(Latency({"Q8_0": 6e-11, "Q4_K": 3e-11}, 2e-5, 0.05, 4, 31.5), {"Q8_0": 0.003})
    made = MachineProfile((one, four), 1e10, load=3.0, seconds=70.0)
    path = tmp_path / "here.toml"
    path.write_text(made.to_toml(), encoding="utf-8")
    found = read_device(str(path))
    assert found.bandwidth_bytes_per_second == 1e10
    assert isinstance(found.latency, Latency)
    assert found.latency.n_threads == 4
    assert found.latency.seconds_per_byte == pytest.approx(four.latency.seconds_per_byte)
    assert found.power_watts == 31.5
    path.write_text(made.to_toml().replace("threads = 4  #", "threads = 1  #"), encoding="utf-8")
    single = read_device(str(path))
    assert isinstance(single.latency, Latency)
    assert single.latency.seconds_per_byte == pytest.approx(one.latency.seconds_per_byte)
    assert single.power_watts == PowerUnknown()
    path.write_text(made.to_toml().replace("threads = 4  #", "threads = 3  #"), encoding="utf-8")
    with pytest.raises(DeviceError) as refused:
        read_device(str(path))
    sentence(refused.value, "1 or 4", 3)
    assert made.is_disturbed
    assert not MachineProfile((one,), 1e10, load=3.0, seconds=70.0).is_disturbed
    assert not MachineProfile((one, four), 1e10, load=0.1, seconds=70.0).is_disturbed


def test_threads_are_numbers_or_all() -> None:
    assert parse_threads("1, 3,1") == (1, 3)
    assert parse_threads("all") == (processors(),)
    for wrong in ("many", "", "-1"):
        with pytest.raises(UserError) as refused:
            parse_threads(wrong)
        sentence(refused.value, wrong)


def test_what_cannot_be_timed_is_refused() -> None:
    with pytest.raises(UserError):
        profile_machine(["Q9_K"])
    with pytest.raises(UserError) as refused:
        profile_machine(["Q8_0"], (processors() + 1,))
    sentence(refused.value, processors() + 1)


def test_a_machine_is_timed_on_each_number_of_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bitwright.pipeline.profiling.DEPTHS", (2, 1))
    monkeypatch.setattr("bitwright.pipeline.profiling.TrialShape", lambda depth: TrialShape(depth, 256, 512, 4, 384))
    monkeypatch.setattr("bitwright.pipeline.profiling.processors", lambda: 2)
    for name, few in (("_TOKENS", 1), ("_REPEATS", 1), ("_PROMPT", 8)):  # threads that share a processor take long for a token
        monkeypatch.setattr(f"bitwright.pipeline.profiling.{name}", few)
    found = profile_machine(["Q8_0", "Q4_0"], (1, 2))
    assert [of.latency.n_threads for of in found.threads] == [1, 2]
    for of in found.threads:
        assert set(of.latency.seconds_per_byte) == {"Q8_0", "Q4_0"} == set(of.seconds_per_prompt_token)
    path = tmp_path / "here.toml"
    path.write_text(found.to_toml(), encoding="utf-8")
    kept = read_device(str(path)).latency
    assert isinstance(kept, Latency)
    assert kept.n_threads == 2


def test_copying_has_a_rate() -> None:
    assert 1e7 < copying_bandwidth(2**22) < 1e13
