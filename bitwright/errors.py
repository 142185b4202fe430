"""Errors of Bitwright: one hierarchy, one sentence per message.

    BitwrightError
    ├── UserError            wrong input; the command line prints the sentence and exits with 2
    │   ├── ModelError       the model cannot be read, or the target does not support it
    │   ├── BudgetError      no file of that size exists, or none is needed
    │   ├── PlanError        a plan that is malformed or made for another model
    │   ├── TextError        calibration text that is empty, too short or unreadable
    │   ├── ObjectiveError   an objective that is unknown, or that gives no number
    │   ├── DeviceError      a profile of a device that lacks a figure, or has an impossible one
    │   ├── RunError         a run folder that was made with other settings, or lacks a step
    │   ├── OutputError      a file or folder that cannot be written
    │   └── LibraryError     a library that is missing, too old or not the one expected
    └── BrokenPromiseError   a built file is not what its plan says; the command line exits with 1

A message states the rule, the value, and the way out.
"""


class BitwrightError(Exception):
    """Base class of Bitwright's exceptions."""


class UserError(BitwrightError):
    """Wrong input; the message is one sentence that a user can act on."""


class ModelError(UserError):
    """Model that cannot be read, or that the target does not support."""


class BudgetError(UserError):
    """Budget that is malformed, below the smallest file, or above the original."""


class PlanError(UserError):
    """Plan that is malformed, or belongs to another model."""


class TextError(UserError):
    """Calibration or held-out text that cannot be used."""


class ObjectiveError(UserError):
    """Objective that is unknown, cannot be evaluated, or gives no number."""


class DeviceError(UserError):
    """Device profile that cannot be read, lacks a figure, or has an impossible one."""


class RunError(UserError):
    """Run folder that holds another run, or lacks a step that is needed."""


class OutputError(UserError):
    """Result that cannot be written."""


class LibraryError(UserError):
    """Library that is missing or is not the one expected."""


class BrokenPromiseError(BitwrightError):
    """Built file that differs from what its plan promised."""


def shown(value: object, at_most: int = 60) -> str:
    """Return foreign text, such as another library's message, for use in a sentence: on one line, without control characters, truncated to `at_most`
    characters.

    >>> shown("blk\\n0")
    'blk\\\\n0'
    """
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(value)[: at_most + 1])
    return text if len(text) <= at_most else f"{text[:at_most]}…"
