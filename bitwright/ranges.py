"""The ranges of what is given as a number, each said once: `--help` tells them, and whatever takes such a number holds to them."""

from dataclasses import dataclass
from math import inf

from bitwright.errors import UserError

_LARGEST = 2**31 - 1  # what every generator of random numbers takes as a seed, and every engine as a count


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most` that something may have; `name` is what it is in words, and `option` how the command line calls it."""

    name: str
    option: str
    least: int
    most: float = _LARGEST

    def __str__(self) -> str:
        """E.g. `from 0 to 2,147,483,647`, `2 or more`."""
        return f"{self.least:,} or more" if self.most == inf else f"from {self.least:,} to {self.most:,}"

    def require(self, value: float) -> None:
        """Refuse a number that is outside.

        Raises:
            UserError: it is, or it is not a number.
        """
        if not self.least <= value <= self.most:
            way = f"a smaller {self.option}" if value > self.most else f"a larger {self.option}"
            raise UserError(f"The {self.name} must be {self._bound(value)}; it is {value:,}: give {way}.")

    def _bound(self, value: float) -> str:
        return f"at most {self.most:,}" if value > self.most else f"at least {self.least:,}"


# A standard error takes two sequences: one alone says nothing of how far off it is.
CALIBRATION_SEQUENCES = Range("number of calibration sequences", "--calibration-sequences", 2, 10_000_000)
HELD_OUT_SEQUENCES = Range("number of held-out sequences", "--held-out-sequences", 2, 10_000_000)
ORDERING_SEQUENCES = Range("number of calibration sequences", "--calibration-sequences", 1, 10_000_000)
SEQUENCE_LENGTH = Range("number of tokens of a sequence", "--sequence-length", 2)
CACHE_LENGTH = Range("number of tokens of a sequence for the cache", "--context", 2)
SEED = Range("seed", "--seed", 0)
CONTEXT = Range("context", "--context", 1)
PARALLEL = Range("number of parallel sequences", "--parallel", 1)
EVALUATIONS = Range("number of evaluations", "--evaluations", 0, inf)
TOKENS = Range("number of tokens that a search reads", "--tokens", 0, inf)
SECONDS = Range("time of a search", "--minutes", 0, inf)
POINTS = Range("number of points of a front", "--points", 2, 10_000)
THREADS = Range("number of threads", "--threads", 1, 4096)
PLANS = Range("number of plans that proxies are ranked by", "--plans", 6, 1_000_000)
