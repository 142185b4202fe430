"""Import and export of plans in the file formats of other quantization tools."""

from bitwright.dialects.dialect import modules_of, offered_by
from bitwright.dialects.known import dialect_named

__all__ = ["dialect_named", "modules_of", "offered_by"]
