"""What a choice is thought to be worth before it is measured."""

from bitwright.predictors.gradient import gradient_products, gradient_table
from bitwright.predictors.losses import FromOriginal, Loss, SampledLabels, TextLabels
from bitwright.predictors.measured import measured_table
from bitwright.predictors.products import AbsoluteProduct, InnerProduct, Product, SquaredOutputChange
from bitwright.predictors.scale import Scale, completed, fit_scale, summed
from bitwright.predictors.shrinkage import shrunk_table
from bitwright.predictors.subject import Subject
from bitwright.predictors.sweep import ORIGINAL, Products, Sweep, measure_products, point
from bitwright.predictors.weight_error import importance_error_table, weight_error_table

__all__ = [
    "ORIGINAL",
    "AbsoluteProduct",
    "FromOriginal",
    "InnerProduct",
    "Loss",
    "Product",
    "Products",
    "SampledLabels",
    "Scale",
    "SquaredOutputChange",
    "Subject",
    "Sweep",
    "TextLabels",
    "completed",
    "fit_scale",
    "gradient_products",
    "gradient_table",
    "importance_error_table",
    "measure_products",
    "measured_table",
    "point",
    "shrunk_table",
    "summed",
    "weight_error_table",
]
