"""What a choice is thought to be worth before it is measured."""

from bitwright.predictors.gradient import GradientProducts, measure_products
from bitwright.predictors.measured import measured_table
from bitwright.predictors.scale import Scale, completed, fit_scale, summed
from bitwright.predictors.shrinkage import shrunk_table
from bitwright.predictors.weight_error import importance_error_table, weight_error_table

__all__ = [
    "GradientProducts",
    "Scale",
    "completed",
    "fit_scale",
    "importance_error_table",
    "measure_products",
    "measured_table",
    "shrunk_table",
    "summed",
    "weight_error_table",
]
