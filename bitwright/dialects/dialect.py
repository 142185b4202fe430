"""Write the formats of a plan in the file format of another tool, and read them back.

Bitwright names tensors as the target does; other tools name the modules of transformers. `Modules` maps the one to the other. Float formats mean
that a tensor stays as it is stored, so they are not read back. Settings left to a tool's defaults are refused, never guessed.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from bitwright.compress import ParameterSlice
from bitwright.engines import ENGINES
from bitwright.errors import PlanError
from bitwright.spaces import Format, Scheme, Tensor, role_of

FLOATS = ("F32", "F16", "BF16")
EMBEDDING, HEAD = "token_embd", "output"


@dataclass(frozen=True)
class Module:
    """Name of a transformers module, the shape of its weight, `(n_rows, n_columns)`, and the weight's role (`attn_q`)."""

    name: str
    shape: tuple[int, ...]
    role: str


#: quantization scheme -> name of the format, for the formats that a plan may have
Offered = Mapping[Scheme, str]


def offered_by(formats: Iterable[Format]) -> Offered:
    """Return the quantization schemes among the `formats` of a target, with their names."""
    return {form.scheme: form.name for form in formats if form.scheme is not None}


_BY_NAME = {name: asked for engine in ENGINES.values() for asked, name in offered_by(engine.target.formats).items()}


#: tensor of the engine → the module whose weight it is
Modules = Mapping[str, Module]


class Dialect(ABC):
    """Reader and writer of one tool's plan file: `read` inverts `write`, except for tensors that stay as stored.

    `same_codes` says whether the tool makes the very codes that a plan was measured with; else its file is a recipe for the tool to requantize.
    """

    name: ClassVar[str]
    same_codes: ClassVar[bool] = False

    def expresses(self, formats: Iterable[Format]) -> bool:
        """Return whether the dialect has schemes for any of the `formats` of a target."""
        return bool(offered_by(formats))

    @abstractmethod
    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return the text for `formats` (tensor → format); tensors of `modules` that are not in it stay as they are stored.

        Raises:
            PlanError: the dialect cannot express a format, or a tensor has no module of its own.
        """

    @abstractmethod
    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """Parse the text: return tensor → format for every tensor of `modules` that it quantizes, each one of the `offered` formats.

        Raises:
            PlanError: the text is not of this dialect, asks for a scheme that is not offered, or leaves a module to the tool's defaults.
        """


def modules_of(tensors: Iterable[Tensor], pieces: Mapping[str, tuple[ParameterSlice, ...]]) -> dict[str, Module]:
    """Return the modules of all tensors that are a module's whole weight; parts of a fused weight and experts within a stack are not."""
    uses = Counter(piece.parameter for slices in pieces.values() for piece in slices)
    known = {tensor.name: tensor for tensor in tensors}
    whole = {tensor: slices[0] for tensor, slices in pieces.items() if tensor in known and len(slices) == 1}
    alone = {tensor: piece for tensor, piece in whole.items() if piece.expert < 0 and uses[piece.parameter] == 1}
    return {tensor: Module(piece.parameter.removesuffix(".weight"), known[tensor].shape, role_of(known[tensor])) for tensor, piece in alone.items()}


def module_of(modules: Modules, tensor: str, dialect: str) -> Module:
    """Return the module of a tensor.

    Raises:
        PlanError: the tensor is not the whole weight of a module.
    """
    if tensor not in modules:
        raise PlanError(
            f"{dialect} names modules; {tensor} is not the weight of one (parts of fused weights, experts in a stack): leave it unquantized."
        )
    return modules[tensor]


def integer_scheme(tensor: str, form: str, *, dialect: str, modules: Modules) -> Scheme:
    """Return the scheme of the format called `form`, integers whose group size divides the rows.

    Raises:
        PlanError: it is not such a format.
    """
    asked = any_scheme(tensor, form, dialect=dialect, modules=modules)
    if asked.floats or asked.inputs:
        raise inexpressible(dialect, tensor, form, "it expresses grouped integers only, without quantized inputs")
    return asked


def any_scheme(tensor: str, form: str, *, dialect: str, modules: Modules) -> Scheme:
    """Return the scheme of the format called `form`, for dialects that also express 8-bit floats and quantized inputs.

    Raises:
        PlanError: it is not such a format.
    """
    if form not in _BY_NAME:
        raise inexpressible(dialect, tensor, form, "it expresses grouped integers only")
    asked, n_columns = _BY_NAME[form], module_of(modules, tensor, dialect).shape[-1]
    if asked.group and n_columns % asked.group:
        raise inexpressible(dialect, tensor, form, f"the group size must divide a row, which has {n_columns} weights")
    return asked


def inexpressible(dialect: str, tensor: str, form: str, rule: str) -> PlanError:
    """Return the error for a format that a dialect cannot express."""
    return PlanError(f"{dialect} cannot express {form} for {tensor}, since {rule}: give this tensor another format, or leave it unquantized.")
