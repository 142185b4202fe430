"""What every dialect is: a text from formats, and formats from a text.

Bitwright names tensors by llama.cpp's roles; other tools name the modules of transformers. `Modules` maps the one to the other. Formats of floats
mean that a tensor stays as it is stored, so they are not read back. What a tool would decide by itself is refused, never guessed.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from bitwright.compress import Piece
from bitwright.engines import VLLM
from bitwright.errors import PlanError
from bitwright.spaces import INTEGER_FORMATS, ByteFormat, Format, IntegerFormat, PackedFormat, Tensor

FLOATS = ("F32", "F16", "BF16")
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Module:
    """The name of a module of transformers, and the shape of its weight: `(n_rows, n_columns)`."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Integers:
    """What dialects say of integers: bits, weights in a group (0 for a row), and whether zero is in the middle of the codes.

    Few can say that they are no integers but floats of as many bits, and that the inputs of the layer are rounded to the same.
    """

    bits: int
    group: int
    symmetric: bool
    floats: bool = False
    inputs: bool = False


#: the names of the formats that a plan may have, by what dialects say of them
Offered = Mapping[Integers, str]


def offered_by(formats: Iterable[Format]) -> Offered:
    """The integers among the `formats` of a target."""
    found: dict[Integers, str] = {}
    for form in formats:
        if isinstance(form, IntegerFormat):
            found[Integers(form.bits, form.group, symmetric=False)] = form.name
        elif isinstance(form, PackedFormat):
            found[Integers(form.bits, form.group, symmetric=not form.zero_points)] = form.name
        elif isinstance(form, ByteFormat):
            found[Integers(8, 0, symmetric=True, floats=form.kind == "float", inputs=form.input_steps > 0)] = form.name
    return found


_BY_NAME = {name: asked for formats in (INTEGER_FORMATS, VLLM.formats) for asked, name in offered_by(formats).items()}


#: tensor of the engine → the module whose weight it is
Modules = Mapping[str, Module]


class Dialect(ABC):
    """The plan file of one tool. A mirror pair, but for what stays as it is stored.

    `same_codes` says whether the tool makes the very codes that a plan was measured with; else its file is a recipe for the tool to quantize anew.
    """

    name: ClassVar[str]
    same_codes: ClassVar[bool] = False

    @abstractmethod
    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """The text for `formats` (tensor → format); tensors of `modules` that are not in it stay as they are stored.

        Raises:
            PlanError: the dialect cannot say a format, or a tensor has no module of its own.
        """

    @abstractmethod
    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """Tensor → format for every tensor of `modules` that the text quantizes, each of those that are `offered`.

        Raises:
            PlanError: the text is not of this dialect, asks for what no format offered is, or leaves a module to the tool's defaults.
        """


def modules_of(tensors: Iterable[Tensor], pieces: Mapping[str, tuple[Piece, ...]]) -> dict[str, Module]:
    """The modules of all tensors that are the whole weight of one: a part of a fused weight, or an expert within a stack, is none."""
    uses = Counter(piece.parameter for of in pieces.values() for piece in of)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    whole = {tensor: of[0] for tensor, of in pieces.items() if tensor in shapes and len(of) == 1}
    alone = {tensor: piece for tensor, piece in whole.items() if piece.expert < 0 and uses[piece.parameter] == 1}
    return {tensor: Module(piece.parameter.removesuffix(".weight"), shapes[tensor]) for tensor, piece in alone.items()}


def module_of(modules: Modules, tensor: str, dialect: str) -> Module:
    """The module of a tensor.

    Raises:
        PlanError: it has none of its own.
    """
    if tensor not in modules:
        raise PlanError(
            f"{dialect} names modules; {tensor} is not the weight of one (parts of fused weights and experts in a stack are not): keep it as stored."
        )
    return modules[tensor]


def integer(tensor: str, form: str, *, dialect: str, modules: Modules) -> Integers:
    """What the format of that name is, where it is one of integers whose groups divide the rows.

    Raises:
        PlanError: it is not.
    """
    asked = described(tensor, form, dialect=dialect, modules=modules)
    if asked.floats or asked.inputs:
        raise unsayable(dialect, tensor, form, "it is given integers in groups only, and leaves the inputs of layers alone")
    return asked


def described(tensor: str, form: str, *, dialect: str, modules: Modules) -> Integers:
    """The same for dialects that can also say floats of 8 bits and rounded inputs.

    Raises:
        PlanError: it is no such format either.
    """
    if form not in _BY_NAME:
        raise unsayable(dialect, tensor, form, "it is given integers in groups only")
    asked, n_columns = _BY_NAME[form], module_of(modules, tensor, dialect).shape[-1]
    if asked.group and n_columns % asked.group:
        raise unsayable(dialect, tensor, form, f"its groups must divide a row, which has {n_columns} weights")
    return asked


def unsayable(dialect: str, tensor: str, form: str, rule: str) -> PlanError:
    """The error for a format that a dialect cannot say."""
    return PlanError(f"{dialect} cannot say {form} of {tensor}, since {rule}: give this tensor another format, or keep it as it is stored.")
