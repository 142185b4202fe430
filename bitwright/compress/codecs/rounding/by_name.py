"""Rounding methods by their names on the command line and in plans."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bitwright.compress.codecs.rounding.clipping import SearchedClipping, clipped
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.half_quadratic import HalfQuadratic
from bitwright.compress.codecs.rounding.refitted import Refitted
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest
from bitwright.compress.models.source import Floats
from bitwright.plugins import Parts

#: libggml's own quantizers
GGML = "ggml"
#: error feedback on the block formats of libggml
OBS = "obs"


@dataclass(frozen=True, eq=False)
class NamedRounding:
    """Rounding by its name, made from the second moments `(n_experts, n_columns, n_columns)` of layers' inputs by tensor, which it may leave unused.

    Codes of one that `needs_moments` depend on the text, and cannot be made again from weights and importance.
    """

    name: str
    make: Callable[[Mapping[str, Floats]], Rounding]
    needs_moments: bool = False


_BUILT_IN = (
    NamedRounding("rtn", lambda _: RoundToNearest()),
    NamedRounding("clip", lambda _: SearchedClipping()),
    NamedRounding("hqq", lambda _: HalfQuadratic()),
    NamedRounding("gptq", Gptq, needs_moments=True),
    NamedRounding("gptq+clip", lambda moments: Gptq(moments, place=clipped), needs_moments=True),
    NamedRounding("gptq+refit", lambda moments: Refitted(Gptq(moments)), needs_moments=True),
    NamedRounding("gptq+clip+refit", lambda moments: Refitted(Gptq(moments, place=clipped)), needs_moments=True),
)
#: the built-in ones, and those of other packages
ROUNDING_PARTS = Parts("A codec must be a known rounding", "bitwright.codecs", (NamedRounding,), {rounding.name: rounding for rounding in _BUILT_IN})


def rounding_named(name: str, moments: Mapping[str, Floats]) -> Rounding:
    """Return the rounding of that name; `moments` are second moments of the inputs of layers, which only some use.

    Raises:
        UserError: there is no rounding of that name.
        LibraryError: another package declares it, and it cannot be loaded.
    """
    return ROUNDING_PARTS.named(name).make(moments)


def needs_moments(name: str) -> bool:
    """Return whether that rounding uses the second moments of a text, so that its codes cannot be made again from weights and importance."""
    return name == OBS or (name in ROUNDING_PARTS.names and ROUNDING_PARTS.named(name).needs_moments)
