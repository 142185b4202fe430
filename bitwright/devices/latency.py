"""Latency model of decoding on one machine: seconds per byte of each format, plus a constant per token.

Decoding multiplies every matrix with one vector, so a matrix costs its bytes times the seconds per byte of its format: one rate for all formats where
memory bandwidth is the limit, a rate per format where unpacking is.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PowerUnknown:
    """No power: the profile does not give the power draw of the device."""


POWER_UNKNOWN = PowerUnknown()


@dataclass(frozen=True)
class Latency:
    """Latency model: seconds per byte of each format and per token, on `n_threads` threads. `relative_error` is the root mean square of the fit,
    and `power_watts` the power that the processor drew meanwhile.
    """

    seconds_per_byte: Mapping[str, float]
    seconds_per_step: float
    relative_error: float
    n_threads: int = 1
    power_watts: float | PowerUnknown = POWER_UNKNOWN

    def seconds_per_token(self, read_bytes: Mapping[str, float]) -> float:
        """Return the seconds for a token that reads `read_bytes` of each format.

        Raises:
            KeyError: a format was not profiled.
        """
        return sum(self.seconds_per_byte[form] * n_bytes for form, n_bytes in read_bytes.items()) + self.seconds_per_step
