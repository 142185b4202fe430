"""Rounding methods by their names on the command line and in plans."""

from collections.abc import Mapping

from bitwright.compress.codecs.rounding.clipping import SearchedClipping, clipped
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.half_quadratic import HalfQuadratic
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest
from bitwright.compress.models.source import Floats

#: libggml's own quantizers, the only ones for its block formats
GGML = "ggml"
_BY_THEMSELVES = {"rtn": RoundToNearest(), "clip": SearchedClipping(), "hqq": HalfQuadratic()}
_BY_MOMENTS = ("gptq", "gptq+clip")
ROUNDINGS = (*_BY_THEMSELVES, *_BY_MOMENTS)


def rounding_named(name: str, moments: Mapping[str, Floats]) -> Rounding:
    """Return the rounding method of a name; `moments` are used by `Gptq` only.

    Raises:
        KeyError: the name is not one of `ROUNDINGS`.
    """
    if needs_moments(name):
        return Gptq(moments, place=clipped) if name.endswith("clip") else Gptq(moments)
    return _BY_THEMSELVES[name]


def needs_moments(name: str) -> bool:
    """Return whether a rounding method uses second moments of calibration text, so that weights and importance do not determine its codes."""
    return name in _BY_MOMENTS
