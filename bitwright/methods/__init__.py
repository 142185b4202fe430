"""Search methods by name: the default, published methods, and baselines."""

from bitwright.methods.by_name import METHOD_PARTS, METHODS, method_named
from bitwright.methods.method import AUTO, PREDICTOR, Method, evenly_spaced_budgets

__all__ = ["AUTO", "METHODS", "METHOD_PARTS", "PREDICTOR", "Method", "evenly_spaced_budgets", "method_named"]
