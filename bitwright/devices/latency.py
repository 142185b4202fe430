"""How long an engine takes for a token on one machine: bytes of each format times a rate, plus a time for each token.

Decoding multiplies every matrix with one vector, so a matrix costs its bytes times what its format takes a byte: where memory is the limit that is
one number for all formats, and where unpacking is, each has its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NotTimed:
    """Nobody has timed the machine."""


@dataclass(frozen=True)
class PowerUnknown:
    """Nobody has said what the device draws."""


POWER_UNKNOWN = PowerUnknown()


@dataclass(frozen=True)
class Latency:
    """Seconds for a byte of each format and for each token, on `n_threads` threads; `relative_error` is the fit's root mean square, and `power_watts`
    what the processor drew meanwhile.
    """

    seconds_per_byte: Mapping[str, float]
    seconds_per_step: float
    relative_error: float
    n_threads: int = 1
    power_watts: float | PowerUnknown = POWER_UNKNOWN

    def seconds_per_token(self, read_bytes: Mapping[str, float]) -> float:
        """Seconds for a token that reads `read_bytes` of each format.

        Raises:
            KeyError: a format was not timed.
        """
        return sum(self.seconds_per_byte[form] * n_bytes for form, n_bytes in read_bytes.items()) + self.seconds_per_step
