"""What every dialect is: a text from formats, and formats from a text.

Bitwright names tensors by llama.cpp's roles; other tools name the modules of transformers. `Names` maps the one to the other. Formats of floats mean
that a tensor stays as it is stored, so they are not read back.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from bitwright.compress import Piece
from bitwright.errors import PlanError
from bitwright.spaces import INTEGER_FORMATS, IntegerFormat

#: tensor of the engine → module of transformers
Names = Mapping[str, str]
FLOATS = ("F32", "F16", "BF16")
INTEGERS = {form.name: form for form in INTEGER_FORMATS if isinstance(form, IntegerFormat)}
_BY_WIDTH = {(form.bits, form.group): name for name, form in INTEGERS.items()}


class Dialect(ABC):
    """The plan file of one tool. A mirror pair, but for what stays as it is stored."""

    name: str

    @abstractmethod
    def write(self, formats: Mapping[str, str], names: Names) -> str:
        """The text for `formats` (tensor → format).

        Raises:
            PlanError: the dialect cannot say a format, or a tensor has no module of its own.
        """

    @abstractmethod
    def read(self, text: str, names: Names) -> dict[str, str]:
        """Tensor → format for every tensor of `names` that the text quantizes.

        Raises:
            PlanError: the text is not of this dialect, or asks for what no format of Bitwright is.
        """


def module_names(pieces: Mapping[str, tuple[Piece, ...]]) -> dict[str, str]:
    """Names of all tensors that are the weight of one module; an expert within a stack is none."""
    return {tensor: of[0].parameter.removesuffix(".weight") for tensor, of in pieces.items() if len(of) == 1 and of[0].expert < 0}


def module_of(names: Names, tensor: str, dialect: str) -> str:
    """The module of a tensor.

    Raises:
        PlanError: it has none of its own.
    """
    if tensor not in names:
        raise PlanError(f"{dialect} names modules; {tensor} is not the weight of one module (experts in a stack are not): keep it as it is stored.")
    return names[tensor]


def integer(tensor: str, form: str, dialect: str) -> IntegerFormat:
    """The format of that name where it is one of packed integers.

    Raises:
        PlanError: it is not.
    """
    if form not in INTEGERS:
        raise unsayable(dialect, tensor, form, "it knows integers in groups")
    return INTEGERS[form]


def unsayable(dialect: str, tensor: str, form: str, rule: str) -> PlanError:
    """The error for a format that a dialect cannot say."""
    return PlanError(f"{dialect} cannot say {form} of {tensor}, since {rule}: give this tensor another format.")


def integer_name(bits: object, group: object, dialect: str, module: str) -> str:
    """The name of the format with `bits` and `group` (0 or -1 for a row).

    Raises:
        PlanError: there is none.
    """
    width = (bits, 0 if group == -1 else group)
    if not all(isinstance(part, int) for part in width) or width not in _BY_WIDTH:
        raise PlanError(
            f"{dialect} asks for {bits} bits in groups of {group} for {module}, and no format here is that: choose one of INT2_G32 to INT8_ROW."
        )
    return _BY_WIDTH[width]  # type: ignore[index]


def mapping(value: object, dialect: str, where: str) -> dict[str, Any]:
    """`value` where it is a mapping of names.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise PlanError(f"In {dialect} {where} must be a mapping of names; it is not: give the file that the tool reads.")
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
            f"A file of {dialect} must be JSON; this is not ({error.msg} in line {error.lineno}): give the file that the tool reads."
        ) from error


def require_asymmetric(entry: Mapping[str, Any], key: str, *, dialect: str, module: str) -> None:
    """Refuse a symmetric entry: every integer format here has a minimum.

    Raises:
        PlanError: `entry[key]` is not false.
    """
    if entry.get(key, True) is not False:
        raise PlanError(f"{dialect} asks for symmetric integers for {module}, and the integer formats here have a minimum: set {key} to false.")
