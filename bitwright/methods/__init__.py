"""Search methods by name: the default, published methods, and baselines."""

from bitwright.methods.by_name import METHOD_PARTS, METHODS, method_named
from bitwright.methods.method import AUTO, Method, Sought, Table, budgets_along

__all__ = ["AUTO", "METHODS", "METHOD_PARTS", "Method", "Sought", "Table", "budgets_along", "method_named"]
