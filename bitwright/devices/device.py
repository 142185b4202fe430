"""Device profiles: memory, bandwidth, requirements, and the public source of each figure.

A profile is a small TOML file; those in `devices/` are built in. A fleet is a TOML file of tables `[[device]]`, each a complete profile or the name
of a built-in one with some keys overridden. Unknown keys are refused, so a misspelt key is never silently ignored.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bitwright.devices.latency import POWER_UNKNOWN, Latency, PowerUnknown
from bitwright.errors import BudgetError, DeviceError, UserError, shown
from bitwright.spaces import AnyCacheTypes, CacheTypes, cache_types, parse_budget, require_shallow, small_text

_PROFILES = Path(__file__).with_name("profiles")
_TEXTS = ("name", "memory", "engine", "version")
_FIGURES = ("usable", "bandwidth_gb_per_second", "reached", "least_tokens_per_second", "power_watts")
_COUNTS = ("context", "sequences", "threads")
_OTHERS = ("avoid", "cache", "source", "decode")
_DECODE = ("threads", "seconds_per_step", "relative_error", "seconds_per_gigabyte")
_DECODE_POWER = "power_watts"
_REQUIRED = ("name", "memory", "usable", "bandwidth_gb_per_second", "engine", "version", "context", "sequences", "least_tokens_per_second")
_SHARES = ("usable", "reached")
_MAY_BE_ZERO = ("least_tokens_per_second",)
_LARGEST = 1e18  # of any figure: far beyond any machine, and a float and a number of bytes still
_BYTES_AT_MOST, _LINE_AT_MOST = 2**18, 1000  # tomllib's time grows with the square of a key's length
_COMPARED = 60  # characters of a wrong name that are compared with the right ones
_DEFAULTS: dict[str, Any] = {"reached": 0.7, "avoid": [], "cache": "any", "source": {}}


@dataclass(frozen=True)
class Device:
    """Machine and the requirements on it.

    `usable` is the share of its memory that the engine may use, and `reached` the share of its bandwidth that an engine reaches when it decodes.
    `avoid` names formats that run badly or not at all there, `cache` the KV cache types where they are fixed, and `sources` the source of each figure
    by key. `latency` is for the number of threads used, and `power_watts` is the power drawn with them.
    """

    name: str
    memory_bytes: int
    usable: float
    bandwidth_bytes_per_second: float
    reached: float
    engine: str
    version: str
    context: int
    sequences: int
    least_tokens_per_second: float
    power_watts: float | PowerUnknown
    avoid: tuple[str, ...]
    cache: CacheTypes | AnyCacheTypes
    sources: tuple[tuple[str, str], ...]
    latency: Latency | None

    @property
    def usable_bytes(self) -> int:
        """Memory in bytes that the engine may use."""
        return int(self.memory_bytes * self.usable)

    def seconds_per_token(self, read_bytes: int) -> float:
        """Return the seconds to decode a token that reads `read_bytes` of weights and cache, by bandwidth alone."""
        return read_bytes / (self.bandwidth_bytes_per_second * self.reached)


def profile_names() -> tuple[str, ...]:
    """Return the names of the built-in profiles."""
    return tuple(sorted(path.stem for path in _PROFILES.glob("*.toml")))


def read_device(name: str) -> Device:
    """Read a built-in profile by its name, or a profile from a TOML file.

    Raises:
        DeviceError: there is no such profile, or a key is missing, unknown or has an impossible value.
    """
    path = _PROFILES / f"{name}.toml" if name in profile_names() else Path(name)
    return _device(_entries(path), name)


def read_devices(path: Path) -> tuple[Device, ...]:
    """Read the devices of a fleet from a TOML file.

    Raises:
        DeviceError: the file lists none, two have the same name, or one of them is invalid.
    """
    entries = _entries(path)
    tables = entries.get("device", [])
    if set(entries) != {"device"} or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise DeviceError(f"A fleet lists its devices as tables [[device]] and holds nothing else; {path} does not: write one for each device.")
    devices = tuple(_of_fleet(table, f"{path}, device {i}") for i, table in enumerate(tables, start=1))
    twice = {device.name for device in devices if sum(other.name == device.name for other in devices) > 1}
    if twice:
        raise DeviceError(f"The devices of a fleet must have different names; {path} has '{min(twice)}' twice: give each a `name`.")
    return devices


def _of_fleet(table: Mapping[str, Any], where: str) -> Device:
    """Read a table of a fleet: a built-in profile with some keys overridden, or a complete profile."""
    own = {key: value for key, value in table.items() if key != "profile"}
    if "profile" not in table:
        return _device(own, where)
    name = table["profile"]
    if name not in profile_names():
        close = get_close_matches(str(name)[:_COMPARED], profile_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(profile_names())}."
        raise DeviceError(f"A device's profile must be one that comes along; '{shown(name)}' in {where} is not: {hint}")
    return _device(_entries(_PROFILES / f"{name}.toml") | own, where)


def _entries(path: Path) -> dict[str, Any]:
    try:
        text = small_text(path, at_most=_BYTES_AT_MOST)
        if any(len(line) > _LINE_AT_MOST for line in text.split("\n")):
            raise ValueError(f"a line is longer than {_LINE_AT_MOST} characters")
        entries = tomllib.loads(text)
        require_shallow(entries)
    except OSError as error:
        raise DeviceError(
            f"A device is a TOML file or one of {', '.join(profile_names())}; {path} is neither ({error.strerror}): check the name."
        ) from error
    except RecursionError as error:
        raise DeviceError(f"A device is a TOML file of a few tables; {path} nests too deeply: correct it.") from error
    except ValueError as error:
        raise DeviceError(f"A device is a TOML file; {path} is none ({shown(error, 200)}): correct it.") from error
    return entries


def _device(entries: Mapping[str, Any], where: str) -> Device:
    _require_keys(entries, where)
    values = _DEFAULTS | dict(entries)
    for key in _TEXTS:
        _require(isinstance(values[key], str) and values[key].strip(), f"{key} must be a text", values[key], where)
    for key in (*_FIGURES, *_COUNTS):
        if key in values:
            _require_figure(key, values[key], where)
    cache = [values["cache"]] if isinstance(values["cache"], str) else values["cache"]
    _require(_are_texts(values["avoid"]), "avoid must be a list of formats", values["avoid"], where)
    _require(_are_texts(cache) and len(cache) in (1, 2), "cache must be a type, one for keys and one for values, or any", values["cache"], where)
    source = values["source"]
    _require(isinstance(source, dict) and _are_texts(list(source.values())), "source must be a table of texts", source, where)
    latency = _latency(values, where)
    measured = latency.power_watts if isinstance(latency, Latency) else POWER_UNKNOWN
    return Device(
        name=values["name"],
        memory_bytes=_bytes(values["memory"], where),
        usable=float(values["usable"]),
        bandwidth_bytes_per_second=1e9 * values["bandwidth_gb_per_second"],
        reached=float(values["reached"]),
        engine=values["engine"],
        version=values["version"],
        context=values["context"],
        sequences=values["sequences"],
        least_tokens_per_second=float(values["least_tokens_per_second"]),
        power_watts=float(values["power_watts"]) if "power_watts" in values else measured,
        avoid=tuple(name.upper() for name in values["avoid"]),
        cache=_cache(cache, where),
        sources=tuple(source.items()),
        latency=latency,
    )


def _cache(names: list[str], where: str) -> CacheTypes | AnyCacheTypes:
    try:
        return cache_types(",".join(names))
    except UserError as error:
        raise DeviceError(f"{error} It is in {where}.") from error


def _latency(values: Mapping[str, Any], where: str) -> Latency | None:
    """Read the latency that `bitwright profile` wrote for the requested number of threads, or for the largest profiled one."""
    tables = values.get("decode", [])
    _require(isinstance(tables, list), "decode must be tables [[decode]], one for each number of threads", tables, where)
    known = {found.n_threads: found for found in (_timed(table, where) for table in tables)}
    if not known:
        _require("threads" not in values, "threads must be a number that was profiled, and none was", values.get("threads"), where)
        return None
    wanted = values.get("threads", max(known))
    _require(wanted in known, f"threads must be a number that was profiled, {' or '.join(map(str, sorted(known)))}", wanted, where)
    return known[wanted]


def _timed(table: Any, where: str) -> Latency:
    _require(isinstance(table, dict) and set(table) - {_DECODE_POWER} == set(_DECODE), f"decode must have {', '.join(_DECODE)}", table, where)
    rates = table["seconds_per_gigabyte"]
    _require(isinstance(rates, dict) and rates, "seconds_per_gigabyte must be a table of formats", rates, where)
    for value in (*rates.values(), table["seconds_per_step"], table["relative_error"]):
        _require(isinstance(value, (int, float)) and 0 <= value <= _LARGEST, "rate must be a number from 0 to 1e18", value, where)
    _require_figure("threads", table["threads"], where)
    power = table.get(_DECODE_POWER)
    if power is not None:
        _require_figure(_DECODE_POWER, power, where)
    seconds = {form: value / 1e9 for form, value in rates.items()}
    watts = POWER_UNKNOWN if power is None else float(power)
    return Latency(seconds, float(table["seconds_per_step"]), float(table["relative_error"]), table["threads"], watts)


def _require_keys(entries: Mapping[str, Any], where: str) -> None:
    known = (*_TEXTS, *_FIGURES, *_COUNTS, *_OTHERS)
    unknown = [key for key in entries if key not in known]
    if unknown:
        close = get_close_matches(unknown[0][:_COMPARED], known, n=1)
        raise DeviceError(
            f"A device has the keys {', '.join(known)}; '{shown(unknown[0])}' in {where} is none of them: "
            + (f"did you mean {close[0]}?" if close else "remove it.")
        )
    missing = [key for key in _REQUIRED if key not in entries]
    if missing:
        raise DeviceError(f"A device must have the keys {', '.join(_REQUIRED)}; {where} lacks {missing[0]}: add it.")


def _require_figure(key: str, value: Any, where: str) -> None:
    whole = key in _COUNTS
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    least = "at least 1" if whole else "zero or more" if key in _MAY_BE_ZERO else "greater than zero"
    limit = " and at most 1" if key in _SHARES else ""
    possible = number and (value >= 0 if key in _MAY_BE_ZERO else value > 0) and value <= _LARGEST and (key not in _SHARES or value <= 1)
    _require(possible, f"{key} must be a {'whole ' if whole else ''}number {least}{limit}", value, where)


def _require(holds: object, rule: str, value: object, where: str) -> None:
    if not holds:
        raise DeviceError(f"A device's {rule}; {shown(repr(value))} in {where} is not: correct it.")


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _bytes(text: str, where: str) -> int:
    try:
        memory = parse_budget(text)
    except BudgetError:
        memory = parse_budget("1bpw")
    _require(memory.unit != "bpw", "memory must be a number of bytes such as 8GiB", text, where)
    size_bytes = memory.size_bytes(0)
    _require(1 <= size_bytes <= _LARGEST, "memory must be from a byte to 1e18", text, where)
    return size_bytes
