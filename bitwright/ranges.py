"""Ranges of numeric settings, shown in `--help` and checked wherever such a number is used."""

from dataclasses import dataclass
from math import inf

from bitwright.errors import UserError

_LARGEST = 2**31 - 1  # largest seed of every random number generator, and largest count of every engine


@dataclass(frozen=True)
class Range:
    """Range of a number from `least` to `most`; `name` is its name in messages, and `option` its option on the command line."""

    name: str
    option: str
    least: int
    most: float = _LARGEST

    def __str__(self) -> str:
        """Return, for example, `from 0 to 2,147,483,647` or `2 or more`."""
        return f"{self.least:,} or more" if self.most == inf else f"from {self.least:,} to {self.most:,}"

    def require(self, value: float) -> None:
        """Require that a number is in the range.

        Raises:
            UserError: it is outside, or not a number.
        """
        if not self.least <= value <= self.most:
            way = f"a smaller {self.option}" if value > self.most else f"a larger {self.option}"
            raise UserError(f"The {self.name} must be {self._bound(value)}; it is {value:,}: give {way}.")

    def _bound(self, value: float) -> str:
        return f"at most {self.most:,}" if value > self.most else f"at least {self.least:,}"


# A standard error needs at least two sequences.
CALIBRATION_SEQUENCES = Range("number of calibration sequences", "--calibration-sequences", 2, 10_000_000)
HELD_OUT_SEQUENCES = Range("number of held-out sequences", "--held-out-sequences", 2, 10_000_000)
ORDERING_SEQUENCES = Range("number of calibration sequences", "--calibration-sequences", 1, 10_000_000)
SEQUENCE_LENGTH = Range("number of tokens of a sequence", "--sequence-length", 2)
CACHE_LENGTH = Range("number of tokens of a sequence for the cache", "--context", 2)
PRICE_ROWS = Range("number of rows that formats are priced by", "--price-rows", 16)
SEED = Range("seed", "--seed", 0)
CONTEXT = Range("context", "--context", 1)
PARALLEL = Range("number of parallel sequences", "--parallel", 1)
EVALUATIONS = Range("number of evaluations", "--evaluations", 0, inf)
TOKENS = Range("number of tokens that a search reads", "--tokens", 0, inf)
SECONDS = Range("time of a search", "--minutes", 0, inf)
POINTS = Range("number of points of a front", "--points", 2, 10_000)
THREADS = Range("number of threads", "--threads", 1, 4096)
PLANS = Range("number of plans that proxies are ranked by", "--plans", 6, 1_000_000)
