"""Mutants of a file from a seed: bytes flipped, cut, repeated and spliced, numbers and values replaced by those that readers stumble over.

The same seed gives the same mutants in every process.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

_COUNTS = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**12, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 64, 10**9, 10**23, 2**63, -(2**63), 0.5, 1e308, -0.0),
    *("", "text", "0", "\ud800", "\x00", "\x1b[31m", "a" * 5000),
    *([], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, [1, 2, 3], ["a", "b"], [0] * 300),
)
_TEXTS = (
    *("NaN", "Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000, "null", "-", "\\", '"', "}", ",,"),
    *("re:", "((", "a{99999999999}", "(a|aa)+$#", "^((\\w+)+)+#$", "a." * 60_000),
)

Mutator = Callable[[bytes, random.Random], bytes]


def mutants(original: bytes, n: int, seed: int, *mutators: Mutator) -> Iterator[bytes]:
    """`n` mutants of a file, each by one to three of the `mutators`."""
    rng = random.Random(seed)
    for _ in range(n):
        mutant = original
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            mutant = rng.choice(mutators)(mutant, rng)
        yield mutant


def bytes_of(data: bytes, rng: random.Random) -> bytes:
    """Change a file at a random place, whatever is in it."""
    if not data:
        return b"\x00"
    at, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 8, 64))
    match rng.randrange(6):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + rng.randbytes(length) + data[at + length :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[at + length :]
        case 4:
            return data[:at] + data[at : at + length] * rng.choice((2, 3, 50)) + data[at + length :]
        case _:
            start = rng.randrange(len(data))
            return data[:at] + data[start : start + length] + data[at:]


def head_of(data: bytes, rng: random.Random) -> bytes:
    """Change a file within its first half kilobyte, where binary files say how they go on."""
    return bytes_of(data[:512], rng) + data[512:]


def counts_of(data: bytes, rng: random.Random) -> bytes:
    """A whole number of four or eight bytes replaced by another, mostly in the head."""
    code, width = rng.choice((("<I", 4), ("<Q", 8)))
    at = rng.randrange(max(1, min(len(data), rng.choice((64, 512, 4096, len(data)))) - width))
    number = rng.choice(_COUNTS) % 2 ** (8 * width)
    if rng.random() < 0.3 and len(data) >= at + width:
        number = (struct.unpack_from(code, data, at)[0] + rng.choice((-1, 1, 8, -8, 32))) % 2 ** (8 * width)
    return data[:at] + struct.pack(code, number) + data[at + width :]


def words_of(data: bytes, rng: random.Random) -> bytes:
    """A text with something put in, or a number in it made another."""
    at = rng.randrange(len(data) + 1)
    word = rng.choice(_TEXTS).encode()
    return data[:at] + word + data[at + rng.choice((0, 0, 1, len(word))) :]


def json_of(data: bytes, rng: random.Random) -> bytes:
    """A text of JSON with one value, key or entry changed; bytes where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return bytes_of(data, rng)
    return json.dumps(_changed(value, rng)).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    if not inner or rng.random() < 0.15:
        return rng.choice(_VALUES)
    key, old = rng.choice(inner)
    action = rng.choice(("change", "change", "change", "change", "drop", "rename", "add"))
    if action == "change":
        new = _changed(old, rng)
        return {**value, key: new} if isinstance(value, dict) else [*value[:key], new, *value[key + 1 :]]
    if isinstance(value, list):
        return [*value[:key], *value[key + 1 :]] if action == "drop" else [*value, old]
    if action == "drop":
        return {name: old for name, old in value.items() if name != key}
    return {**value, rng.choice(("", "extra", f"{key}s", key.upper())): old if action == "rename" else rng.choice(_VALUES)}


def safetensors_of(data: bytes, rng: random.Random) -> bytes:
    """A file of safetensors with its header changed as JSON and its length put right."""
    if len(data) < 8:
        return bytes_of(data, rng)
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data):
        return bytes_of(data, rng)
    header = json_of(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
