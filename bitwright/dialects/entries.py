"""Readers of the entries that several dialects share; each refuses what it does not understand."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bitwright.dialects.dialect import INTEGERS
from bitwright.errors import PlanError

_BY_WIDTH: dict[tuple[object, object], str] = {(form.bits, form.group): name for name, form in INTEGERS.items()}


def integer_name(bits: object, group: object, *, dialect: str, module: str) -> str:
    """The name of the format with `bits` and `group` (-1 for a row).

    Raises:
        PlanError: there is none.
    """
    width = (bits, 0 if group == -1 else group)
    if not all(isinstance(part, int) for part in width) or width not in _BY_WIDTH:
        raise PlanError(
            f"{dialect} asks for bits={bits} and group_size={group} for {module}, which no format here is: say 2 to 8 and 32, 64, 128 or -1."
        )
    return _BY_WIDTH[width]


def mapping(value: object, dialect: str, where: str) -> dict[str, Any]:
    """`value` where it is a mapping of names.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise PlanError(f"In {dialect} {where} must be a mapping of names, not {_short(value)} (presets are not read): write out its entries.")
    return value


def parsed(text: str, dialect: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        PlanError: the text is none.
    """
    try:
        return mapping(json.loads(text), dialect, "the file")
    except json.JSONDecodeError as error:
        raise PlanError(
            f"A file of {dialect} must be JSON; this is not ({error.msg} in line {error.lineno}): give the plan of the tool as JSON."
        ) from error


def require_asymmetric(entry: Mapping[str, Any], key: str, *, dialect: str, module: str) -> None:
    """Refuse a symmetric entry: every integer format here has a minimum.

    Raises:
        PlanError: `entry[key]` is not false.
    """
    if entry.get(key) is not False:
        raise PlanError(f"{dialect} asks for symmetric integers for {module}, and the integer formats here have a minimum: set {key} to false.")


def require_known(entry: Mapping[str, Any], known: Iterable[str], *, dialect: str, module: str) -> None:
    """Refuse entries of which no format here knows anything.

    Raises:
        PlanError: `entry` has a key that is not in `known` and is not null.
    """
    for key, value in entry.items():
        if key not in known and value is not None:
            raise PlanError(f"{dialect} sets {key} for {module}, of which the formats here know nothing: leave it out.")


def unsaid(dialect: str, module: str, way_out: str) -> PlanError:
    """The error for a module that the text leaves to the tool's defaults."""
    return PlanError(f"A plan must say every module; this one for {dialect} leaves {module} to the tool's defaults: {way_out}.")


def _short(value: object) -> str:
    return "nothing" if value is None else f"'{value}'"[:40]
