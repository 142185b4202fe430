"""Regular expressions that come from a file, matched within a limit of time.

Their grammar is that of `re`. The package `regex` reads the same and stops when time is up, where `re` goes on for ever with the likes of
`^((\\w+)+)+#$`; what only one of the two reads, or both read differently, is refused.
"""

import re
import time
import warnings
from math import prod

import regex

from bitwright.errors import UserError, shown

_SECONDS_EACH, _SECONDS = 0.5, 2.0  # for one match, which takes microseconds, and of the processor for all slow matches of a file
_SLOW = 1e-3  # seconds of a match that counts
_LONGEST = 1000  # characters of an expression
#: What compiling raises for mistakes, for counts and nesting that are beyond it, and of sets that Python will read otherwise one day.
_UNCOMPILED = (re.error, regex.error, OverflowError, RecursionError, MemoryError, ValueError, LookupError, FutureWarning)
_LARGEST = 10_000  # the product of all counts: `regex` lays out repetitions of repetitions
_COUNT = re.compile(r"\\.|\{(\d*),?(\d*)\}", re.DOTALL)
_BRACE = re.compile(r"(?:[^\\{]|\\.|\{\d*,?\d*\})*", re.DOTALL)  # `regex` counts mistakes in other braces


class Patterns:
    """Regular expressions of one file, each compiled once, and the processor's time that slow matches have taken.

    `owner` is the file or its dialect in words, and `refusal` the kind of error that its mistakes are.
    """

    def __init__(self, owner: str, refusal: type[UserError]) -> None:
        self._owner, self._refusal, self._spent = owner, refusal, 0.0
        self._compiled: dict[str, regex.Pattern[str]] = {}

    def begins(self, pattern: str, name: str) -> bool:
        """Return whether an expression matches from the start of a name.

        Raises:
            UserError: it is no regular expression, or takes too long.
        """
        return self._tried(pattern, name, anywhere=False)

    def is_in(self, pattern: str, name: str) -> bool:
        """Return whether an expression matches somewhere in a name.

        Raises:
            UserError: see `begins`.
        """
        return self._tried(pattern, name, anywhere=True)

    def _tried(self, pattern: str, name: str, *, anywhere: bool) -> bool:
        compiled = self._compiled.get(pattern) or self._compile(pattern)
        started = time.process_time()
        try:
            found = (compiled.search if anywhere else compiled.match)(name, timeout=_SECONDS_EACH)
        except (TimeoutError, MemoryError, RecursionError) as error:
            raise self._too_long(pattern) from error
        seconds = time.process_time() - started
        self._spent += seconds if seconds > _SLOW else 0
        if self._spent > _SECONDS:
            raise self._too_long(pattern)
        return found is not None

    def _compile(self, pattern: str) -> regex.Pattern[str]:
        try:
            if len(pattern) > _LONGEST:
                raise ValueError(f"it has more than {_LONGEST} characters")
            if not _BRACE.fullmatch(pattern):
                raise ValueError("a brace holds no count")
            if prod(max(int(n or 1) for n in count.groups("1")) for count in _COUNT.finditer(pattern)) > _LARGEST:
                raise ValueError(f"its counts multiply to more than {_LARGEST:,}")
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                re.compile(pattern)
                self._compiled[pattern] = regex.compile(pattern)
        except _UNCOMPILED as error:
            raise self._refusal(
                f"{self._owner} names what it is for by regular expressions; '{shown(pattern)}' is none ({shown(error)}): correct it."
            ) from error
        return self._compiled[pattern]

    def _too_long(self, pattern: str) -> UserError:
        return self._refusal(
            f"The regular expressions of {self._owner} must be matched within {_SECONDS:.0f} s; '{shown(pattern)}' was not: write it simpler."
        )
