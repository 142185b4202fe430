"""Search methods by name: the default, published methods, and baselines."""

from bitwright.methods.by_name import METHODS, method_named
from bitwright.methods.method import AUTO, Method, Sought, Table

__all__ = ["AUTO", "METHODS", "Method", "Sought", "Table", "method_named"]
