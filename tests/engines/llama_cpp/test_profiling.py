from pathlib import Path

import pytest

from bitwright.compress import GgufSource, open_source
from bitwright.devices import Latency, PowerUnknown, package_energy, processors
from bitwright.devices.device import read_device
from bitwright.engines import LLAMA_CPP
from bitwright.engines.llama_cpp.profiling import (
    MachineProfile,
    TimedThreads,
    copying_bandwidth,
    formats_to_time,
    in_format,
    profile_machine,
    time_trial,
    trials,
    written_trial,
)
from bitwright.engines.llama_cpp.trial_model import TrialShape, n_layers_of, trial_matrices, trial_of_model, trial_of_shape
from bitwright.errors import DeviceError, UserError
from bitwright.objectives import tensor_read_shares
from tests.compress import tiny_models as tiny
from tests.model_fixtures import saved
from tests.sentences import sentence

pytestmark = pytest.mark.slow

SMALL = TrialShape(2, width=256, feed_forward_width=512, n_heads=4, n_vocabulary=384)


def test_a_trial_model_loads_in_every_format(tmp_path: Path) -> None:
    source = trial_of_shape(SMALL, seed=0)
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
    made = MachineProfile('a "shape"', (one, four), 1e10, load=3.0, seconds=70.0)
    path = tmp_path / "here.toml"
    path.write_text(made.to_toml(), encoding="utf-8")
    found = read_device(str(path))
    assert found.bandwidth_bytes_per_second == 1e10
    assert 'on a "shape", in 70 s' in dict(found.sources)["decode"]
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
    assert not MachineProfile("", (one,), 1e10, load=3.0, seconds=70.0).is_disturbed
    assert not MachineProfile('a "shape"', (one, four), 1e10, load=0.1, seconds=70.0).is_disturbed


@pytest.mark.parametrize("name", ["llama_tied", "llama_gqa", "tiny_mixtral", "gguf_quantized"])
def test_a_trial_of_a_model_has_its_shapes_and_loads(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = open_source(str(request.getfixturevalue(name)))
    trial = trial_of_model(source, 1, seed=0)
    assert n_layers_of(source) == 2
    shapes = {tensor.name: tensor.shape for tensor in source.tensors if not tensor.name.startswith("blk.1.")}
    assert {tensor.name: tensor.shape for tensor in trial.tensors} == shapes
    formats = in_format(trial, LLAMA_CPP.format("Q8_0"))
    timed = time_trial(written_trial(trial, formats, tmp_path), trial, formats, n_threads=1, energy=package_energy(tmp_path)).timed
    built, shares = GgufSource(tmp_path / "trial.gguf"), tensor_read_shares(source)
    assert timed.read_bytes == {"Q8_0": sum(shares[tensor.name] * built.stored(tensor).nbytes for tensor in trial_matrices(built))}
    assert shares["token_embd.weight"] == (name == "llama_tied")
    assert shares.get("blk.0.ffn_up_exps.weight", 0.5) == 0.5


def test_a_model_is_timed_as_deep_as_it_takes(llama_256: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (deep, half), words = trials(str(llama_256))
    assert (n_layers_of(deep), n_layers_of(half)) == (2, 1)
    assert words.startswith("the shapes of llama_256, 2 and 1 layers")
    monkeypatch.setattr("bitwright.engines.llama_cpp.profiling.n_layers_of", lambda _: 1000)
    monkeypatch.setattr(
        "bitwright.engines.llama_cpp.profiling._ENOUGH", 4 * sum(t.n_weights for t in trial_matrices(deep) if t.name.startswith("blk.")) // 1000
    )
    assert trials(str(llama_256))[1].startswith("the shapes of llama_256, 4 and 2 layers")


def test_latent_attention_is_timed_as_the_engine_holds_it(tmp_path: Path) -> None:
    kind, shape, _ = tiny.FAMILIES["deepseek-v3"]
    for source in trials(str(saved(tmp_path / "model", kind, shape)))[0]:
        formats = in_format(source, LLAMA_CPP.format("Q8_0"))
        found = time_trial(written_trial(source, formats, tmp_path), source, formats, n_threads=1, energy=package_energy(tmp_path))
        assert set(found.timed.read_bytes) == {"Q8_0", "F16"}
        assert "blk.0.attn_k_b.weight" in formats


def test_a_format_is_timed_in_the_rows_that_it_divides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path / "model", "llama", {"hidden_size": 96, "intermediate_size": 256, "num_key_value_heads": 4})
    source = trials(str(model))[0][0]
    six, eight = LLAMA_CPP.format("Q6_K"), LLAMA_CPP.format("Q8_0")
    wide = {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}
    assert {name for name, form in in_format(source, six).items() if form == "Q6_K"} == wide
    assert set(in_format(source, six).values()) == {"Q6_K", "Q8_0"}
    assert formats_to_time(source, [six]) == [six, eight]
    for name, few in (("_TOKENS", 1), ("_REPEATS", 1), ("_PROMPT", 8)):
        monkeypatch.setattr(f"bitwright.engines.llama_cpp.profiling.{name}", few)
    found = profile_machine(["Q6_K"], model=str(model))
    assert set(found.threads[0].latency.seconds_per_byte) == {"Q6_K", "Q8_0"}
    assert found.timed_on.startswith("the shapes of model, 2 and 1 layers")


def test_what_cannot_be_timed_is_refused(llama_96: Path) -> None:
    with pytest.raises(UserError):
        profile_machine(["Q9_K"])
    with pytest.raises(UserError) as refused:
        profile_machine(["Q8_0"], (processors() + 1,))
    sentence(refused.value, processors() + 1)
    with pytest.raises(UserError) as refused:
        profile_machine(["Q6_K", "Q4_K"], model=str(llama_96))
    sentence(refused.value, "Q6_K, Q4_K")


def test_a_machine_is_timed_on_each_number_of_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bitwright.engines.llama_cpp.profiling.DEPTHS", (2, 1))
    monkeypatch.setattr("bitwright.engines.llama_cpp.profiling.TrialShape", lambda depth: TrialShape(depth, 256, 512, 4, 384))
    monkeypatch.setattr("bitwright.engines.llama_cpp.profiling.processors", lambda: 2)
    for name, few in (("_TOKENS", 1), ("_REPEATS", 1), ("_PROMPT", 8)):  # threads that share a processor take long for a token
        monkeypatch.setattr(f"bitwright.engines.llama_cpp.profiling.{name}", few)
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
