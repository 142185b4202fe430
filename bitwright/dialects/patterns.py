"""Regular expressions that come from a file, matched within a limit of time.

Their grammar is that of `re`. The package `regex` reads the same and stops when time is up, where `re` goes on for ever with the likes of
`^((\\w+)+)+#$`; what only one of the two reads, or both read differently, is refused.
"""

import re
import time
import warnings
from collections.abc import Iterable, Mapping
from math import prod

import regex

from bitwright.errors import PlanError, shown

_SECONDS_EACH, _SECONDS = 0.5, 2.0  # for one match, which takes microseconds, and of the processor for all matches of a file
_LONGEST = 1000  # characters of an expression
#: What compiling raises for mistakes, for counts and nesting that are beyond it, and of sets that Python will read otherwise one day.
_UNCOMPILED = (re.error, regex.error, OverflowError, RecursionError, MemoryError, ValueError, LookupError, FutureWarning)
_LARGEST = 10_000  # the product of all counts: `regex` lays out repetitions of repetitions
_COUNT = re.compile(r"\\.|\{(\d*),?(\d*)\}", re.DOTALL)
_BRACE = re.compile(r"(?:[^\\{]|\\.|\{\d*,?\d*\})*", re.DOTALL)  # `regex` counts mistakes in other braces


class Patterns:
    """The expressions of one file of a dialect, each compiled once, and the processor's time that matching them has taken."""

    def __init__(self, dialect: str) -> None:
        self._dialect, self._spent = dialect, 0.0
        self._compiled: dict[str, regex.Pattern[str]] = {}

    def begins(self, pattern: str, name: str) -> bool:
        """Whether an expression matches from the start of a name.

        Raises:
            PlanError: it is no regular expression, or takes too long.
        """
        return self._tried(pattern, name, anywhere=False)

    def is_in(self, pattern: str, name: str) -> bool:
        """Whether an expression matches somewhere in a name.

        Raises:
            PlanError: see `begins`.
        """
        return self._tried(pattern, name, anywhere=True)

    def _tried(self, pattern: str, name: str, *, anywhere: bool) -> bool:
        compiled = self._compiled.get(pattern) or self._compile(pattern)
        started = time.process_time()
        try:
            found = (compiled.search if anywhere else compiled.match)(name, timeout=_SECONDS_EACH)
        except (TimeoutError, MemoryError, RecursionError) as error:
            raise self._too_long(pattern) from error
        self._spent += time.process_time() - started
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
            raise PlanError(
                f"{self._dialect} names what it is for by regular expressions; '{shown(pattern)}' is none ({shown(error)}): correct it."
            ) from error
        return self._compiled[pattern]

    def _too_long(self, pattern: str) -> PlanError:
        return PlanError(
            f"The regular expressions of {self._dialect} must be matched within {_SECONDS:.0f} s; '{shown(pattern)}' was not: write it simpler."
        )


def require_used(rules: Iterable[str], matched: Mapping[str, object] | set[str], dialect: str) -> None:
    """Refuse rules that are for nothing: what was meant by them would be lost without a word.

    Raises:
        PlanError: one of `rules` is not among those that `matched`.
    """
    for rule in rules:
        if rule not in matched:
            raise PlanError(
                f"Every rule of {dialect} must match a tensor that can be decided about; '{shown(rule)}' matches none of the model: correct or "
                "remove it."
            )
