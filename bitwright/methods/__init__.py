"""Search methods by name: the default, published methods, and baselines."""

from bitwright.methods.by_name import METHOD_PARTS, METHODS, method_named
from bitwright.methods.method import AUTO, PREDICTOR, Method, evenly_spaced_budgets
from bitwright.methods.published_drops import DROPS_DIFFER, DROPS_SOURCE, named_drops
from bitwright.methods.published_structures import STRUCTURE_METHODS, asked_structure, structure_method
from bitwright.methods.structure_method import KeptModel, SeenModel

__all__ = [
    "AUTO",
    "DROPS_DIFFER",
    "DROPS_SOURCE",
    "METHODS",
    "METHOD_PARTS",
    "PREDICTOR",
    "STRUCTURE_METHODS",
    "KeptModel",
    "Method",
    "SeenModel",
    "asked_structure",
    "evenly_spaced_budgets",
    "method_named",
    "named_drops",
    "structure_method",
]
