"""Parse entries that several dialects share; unknown ones are refused."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.dialects.dialect import Offered
from bitwright.errors import PlanError, shown
from bitwright.spaces import Scheme, json_object


@dataclass(frozen=True)
class Reader:
    """Parser of the entries of a text, with the dialect's name and the offered formats."""

    dialect: str
    offered: Offered

    def named(self, bits: object, group: object, *, symmetric: object, module: str, floats: bool = False, inputs: bool = False) -> str:
        """Return the name of the format with `bits` and group size `group` (-1 for a row), of `floats` or integers, with quantized `inputs` or not.

        Raises:
            PlanError: no such format is offered, or `symmetric` is neither true nor false.
        """
        if not isinstance(symmetric, bool):
            raise PlanError(f"{self.dialect} must say whether integers are symmetric; for {shown(module)} it does not: write true or false.")
        for asked, name in self.offered.items():
            if type(bits) is int and type(group) is int and asked == Scheme(bits, max(group, 0), symmetric, floats, inputs) and group:
                return name
        kind = f"{'quantized inputs, ' if inputs else ''}{'symmetric' if symmetric else 'asymmetric'}{', type float,' if floats else ''}"
        kinds = " or ".join(dict.fromkeys("symmetric" if asked.symmetric else "asymmetric" for asked in self.offered)) or "no"
        raise PlanError(
            f"{self.dialect} asks for {kind} bits={shown(bits)} and group_size={shown(group)} for {shown(module)}, no format of this target: "
            f"say 2 to 8, groups of 32, 64, 128 or -1, and {kinds} integers, or choose another target."
        )


def mapping(value: object, dialect: str, where: str) -> dict[str, Any]:
    """Return `value` if it is a mapping of names.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise PlanError(f"In {dialect} {shown(where)} must be a mapping of names, not {_short(value)} (presets are not read): write out its entries.")
    return value


def parsed(text: str, dialect: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        PlanError: the text is not a JSON object.
    """
    try:
        return json_object(text)
    except ValueError as error:
        raise PlanError(
            f"A file of {dialect} must be an object of JSON; this is not ({shown(error, 100)}): give the plan of the tool as JSON."
        ) from error


def texts(value: object, dialect: str, where: str) -> list[str]:
    """`value` where it is a list of texts.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise PlanError(f"In {dialect} {shown(where)} must be a list of texts, not {_short(value)}: write it as one.")
    return list(value)


def require_known(entry: Mapping[str, Any], known: Iterable[str], *, dialect: str, module: str) -> None:
    """Raise for keys that no format supports.

    Raises:
        PlanError: `entry` has a key that is not in `known` and is not null.
    """
    for key, value in entry.items():
        if key not in known and value is not None:
            raise PlanError(f"{dialect} sets {shown(key)} for {shown(module)}, of which the formats here know nothing: leave it out.")


def require_used(rules: Iterable[str], used: Container[str], dialect: str) -> None:
    """Refuse rules that are for nothing: what was meant by them would be lost without a word.

    Raises:
        PlanError: one of `rules` is not among those that were `used`.
    """
    for rule in rules:
        if rule not in used:
            raise PlanError(
                f"Every rule of {dialect} must match a tensor that can be decided about; '{shown(rule)}' matches none of the model: correct or "
                "remove it."
            )


def left_to_defaults(dialect: str, module: str, way_out: str) -> PlanError:
    """Return the error for a module that the text leaves to the tool's defaults."""
    return PlanError(f"A plan must name every module; this one for {dialect} leaves {module} to the tool's defaults: {way_out}.")


def _short(value: object) -> str:
    return "nothing" if value is None else f"'{shown(value, 40)}'"
