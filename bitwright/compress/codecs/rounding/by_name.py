"""The roundings by the words of the command line and of plans."""

from collections.abc import Mapping

from bitwright.compress.codecs.rounding.clipping import SearchedClipping, clipped
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.half_quadratic import HalfQuadratic
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest
from bitwright.compress.models.source import Floats

#: libggml's own quantizers, the only ones that make its block formats
GGML = "ggml"
_BY_THEMSELVES = {"rtn": RoundToNearest(), "clip": SearchedClipping(), "hqq": HalfQuadratic()}
_BY_MOMENTS = ("gptq", "gptq+clip")
ROUNDINGS = (*_BY_THEMSELVES, *_BY_MOMENTS)


def rounding_named(name: str, moments: Mapping[str, Floats]) -> Rounding:
    """The rounding of that name; `moments` are those of `Gptq`, and used by no other.

    Raises:
        KeyError: it is none of `ROUNDINGS`.
    """
    if needs_moments(name):
        return Gptq(moments, place=clipped) if name.endswith("clip") else Gptq(moments)
    return _BY_THEMSELVES[name]


def needs_moments(name: str) -> bool:
    """Whether that rounding goes by the second moments of a text, so that its codes cannot be made anew from weights and importance."""
    return name in _BY_MOMENTS
