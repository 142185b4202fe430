import re
from pathlib import Path

import pytest

from bitwright.devices import Device, Latency, PowerUnknown
from bitwright.devices.device import profile_names, read_device, read_devices
from bitwright.errors import DeviceError
from bitwright.spaces import CacheTypes
from tests.sentences import sentence

PROFILE = {
    "name": '"a board"',
    "memory": '"2GiB"',
    "usable": "0.5",
    "bandwidth_gb_per_second": "10",
    "engine": '"llama.cpp"',
    "version": '"b11549"',
    "context": "512",
    "sequences": "2",
    "least_tokens_per_second": "5",
}


def written(path: Path, **changed: str) -> Path:
    entries = {key: value for key, value in (PROFILE | changed).items() if value}
    path.write_text("".join(f"{key} = {value}\n" for key, value in entries.items()), encoding="utf-8")
    return path


def test_a_profile_is_read_as_it_says(tmp_path: Path) -> None:
    found = read_device(str(written(tmp_path / "board.toml", avoid='["iq1_s"]', cache='"q8_0"', power_watts="7.5")))
    assert found == Device(
        "a board", 2**31, 0.5, 1e10, 0.7, "llama.cpp", "b11549", 512, 2, 5.0, 7.5, ("IQ1_S",), CacheTypes("Q8_0", "Q8_0"), (), None
    )
    assert found.usable_bytes == 2**30
    assert found.seconds_per_token(7 * 10**9) == pytest.approx(1.0)
    assert read_device(str(written(tmp_path / "board.toml"))).power_watts == PowerUnknown()


DECODE = "threads = 2\nseconds_per_step = 1e-5\nrelative_error = 0.02\n[decode.seconds_per_gigabyte]\nQ8_0 = 0.1\n"


def test_a_timed_machine_has_rates(tmp_path: Path) -> None:
    path = written(tmp_path / "board.toml")
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}[[decode]]\n{DECODE}", encoding="utf-8")
    latency = read_device(str(path)).latency
    assert latency == Latency({"Q8_0": 1e-10}, 1e-5, 0.02, 2)
    assert latency.seconds_per_token({"Q8_0": 10**9}) == pytest.approx(0.10001)
    for wrong in (
        DECODE.replace("threads = 2", "threads = 0"),
        DECODE.replace("0.1", "-1"),
        DECODE.replace("relative_error", "error"),
        DECODE.replace("1e-5", '"fast"'),
    ):
        path.write_text(f"{text}[[decode]]\n{wrong}", encoding="utf-8")
        with pytest.raises(DeviceError) as refused:
            read_device(str(path))
        sentence(refused.value)


def test_twelve_profiles_come_along_with_the_source_of_every_figure() -> None:
    assert len(profile_names()) == 12
    devices = [read_device(name) for name in profile_names()]
    assert len({device.name for device in devices}) == 12
    for device in devices:
        figures = {"memory", "usable", "bandwidth_gb_per_second"} | (set() if isinstance(device.power_watts, PowerUnknown) else {"power_watts"})
        assert figures | ({"avoid"} if device.avoid else set()) == {key for key, _ in device.sources}
        assert 1e9 < device.bandwidth_bytes_per_second < 1e13
        assert re.search(r"https://|assumption|JEDEC", " ".join(text for _, text in device.sources))


@pytest.mark.parametrize(
    ("changed", "values"),
    [
        ({"memory": ""}, ("memory",)),
        ({"memory": '"-3GiB"'}, ("memory", "-3GiB")),
        ({"memory": '"4bpw"'}, ("4bpw",)),
        ({"memory": "8"}, ("memory", 8)),
        ({"bandwidth_gb_per_second": "-1"}, ("bandwidth", -1)),
        ({"bandwidth_gb_per_second": "nan"}, ("bandwidth",)),
        ({"bandwidth_gb_per_second": "inf"}, ("bandwidth",)),
        ({"usable": "1.5"}, ("usable", 1.5)),
        ({"usable": "true"}, ("usable",)),
        ({"context": "0"}, ("context", 0)),
        ({"context": "512.5"}, ("context", "512.5")),
        ({"power_watts": "0"}, ("power_watts",)),
        ({"bandwith_gb_per_second": "3"}, ("bandwith_gb_per_second", "did you mean bandwidth_gb_per_second")),
        ({"avoid": '"Q4_K"'}, ("avoid",)),
        ({"cache": '["f16", "f16", "f16"]'}, ("cache",)),
        ({"source": '"a book"'}, ("source",)),
    ],
)
def test_a_figure_that_is_missing_or_impossible_is_refused(tmp_path: Path, changed: dict[str, str], values: tuple[object, ...]) -> None:
    path = written(tmp_path / "board.toml", **changed)
    with pytest.raises(DeviceError) as refused:
        read_device(str(path))
    sentence(refused.value, *values)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = ", encoding="utf-8")
    for name in (tmp_path / "none.toml", tmp_path / "broken.toml", "rtx-0000"):
        with pytest.raises(DeviceError) as refused:
            read_device(str(name))
        sentence(refused.value, name)


def test_a_fleet_says_profiles_otherwise_or_in_full(tmp_path: Path) -> None:
    own = "".join(f"{key} = {value}\n" for key, value in PROFILE.items())
    path = tmp_path / "fleet.toml"
    path.write_text(f'[[device]]\nprofile = "rtx-4060-8gb"\ncontext = 1024\nname = "the card"\n[[device]]\n{own}', encoding="utf-8")
    card, board = read_devices(path)
    assert (card.name, card.context, card.memory_bytes) == ("the card", 1024, 8 * 2**30)
    assert board.name == "a board"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ("[[device]]",)),
        ("device = 3", ("[[device]]",)),
        ('[[device]]\nprofile = "rtx-4060"', ("rtx-4060", "did you mean rtx-4060-8gb")),
        ('[[device]]\nprofile = "rtx-4060-8gb"\n[[device]]\nprofile = "rtx-4060-8gb"', ("twice",)),
        ('[[device]]\nprofile = "rtx-4060-8gb"\ncontext = -1', ("context", -1, "device 1")),
        ('name = "x"\n[[device]]\nprofile = "rtx-4060-8gb"', ("nothing else",)),
    ],
)
def test_a_fleet_that_cannot_be_used_is_refused(tmp_path: Path, text: str, values: tuple[object, ...]) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DeviceError) as refused:
        read_devices(path)
    sentence(refused.value, *values)
