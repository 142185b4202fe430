"""What a choice is thought to be worth before it is measured."""

from bitwright.predictors.agreement import Agreement, rank_agreement, sums, table_agreement
from bitwright.predictors.curvature import Trace, hessian_trace, trace_table
from bitwright.predictors.expansion import Expansion
from bitwright.predictors.first_order import alignment_table, delta_loss_table, first_order_table
from bitwright.predictors.gradient import gradient_products, gradient_table
from bitwright.predictors.losses import FromOriginal, Loss, SampledLabels, TextLabels
from bitwright.predictors.measured import measured_table, measured_table_at
from bitwright.predictors.noise import noise_coefficients, noise_table
from bitwright.predictors.output_change import output_change_table
from bitwright.predictors.products import AbsoluteProduct, InnerProduct, Product, SquaredOutputChange
from bitwright.predictors.scale import Scale, completed, fit_scale, summed
from bitwright.predictors.shapley import Shapley, shapley_marginals, shapley_table
from bitwright.predictors.shrinkage import shrunk_table
from bitwright.predictors.subject import Subject
from bitwright.predictors.sweep import ORIGINAL, Products, Sweep, measure_products, point
from bitwright.predictors.weight_error import importance_error_table, weight_error_table

__all__ = [
    "ORIGINAL",
    "AbsoluteProduct",
    "Agreement",
    "Expansion",
    "FromOriginal",
    "InnerProduct",
    "Loss",
    "Product",
    "Products",
    "SampledLabels",
    "Scale",
    "Shapley",
    "SquaredOutputChange",
    "Subject",
    "Sweep",
    "TextLabels",
    "Trace",
    "alignment_table",
    "completed",
    "delta_loss_table",
    "first_order_table",
    "fit_scale",
    "gradient_products",
    "gradient_table",
    "hessian_trace",
    "importance_error_table",
    "measure_products",
    "measured_table",
    "measured_table_at",
    "noise_coefficients",
    "noise_table",
    "output_change_table",
    "point",
    "rank_agreement",
    "shapley_marginals",
    "shapley_table",
    "shrunk_table",
    "summed",
    "sums",
    "table_agreement",
    "trace_table",
    "weight_error_table",
]
