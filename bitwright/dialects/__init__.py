"""Import and export of plans in the file formats of other quantization tools."""

from bitwright.dialects.dialect import Dialect, Module, Modules, modules_of, offered_by
from bitwright.dialects.known import dialect_named

__all__ = ["Dialect", "Module", "Modules", "dialect_named", "modules_of", "offered_by"]
