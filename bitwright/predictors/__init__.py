"""What a choice is thought to be worth before it is measured."""

from bitwright.predictors.additive import AdditivePredictor
from bitwright.predictors.agreement import Agreement, rank_agreement, sums, table_agreement
from bitwright.predictors.block_output import block_output_errors
from bitwright.predictors.by_name import PREDICTORS, predictor_named
from bitwright.predictors.by_text import tables_by_text
from bitwright.predictors.cache_losses import cache_losses, with_cache_losses, with_cache_steps
from bitwright.predictors.canonical import canonical_scores
from bitwright.predictors.composed import Repaired, power_product, rank_average, repaired, reweighted, scaled_sum
from bitwright.predictors.curvature import Trace, hessian_trace, trace_table
from bitwright.predictors.drops import IN_NATS, drop_losses, droppable, may_drop, moved, stored, with_drops
from bitwright.predictors.expansion import Expansion
from bitwright.predictors.expert_product import PUBLISHED, RELEASED, ExpertProduct, router_scores
from bitwright.predictors.first_order import alignment_table, delta_loss_table, first_order_table
from bitwright.predictors.forced_routing import forced_costs, forced_table
from bitwright.predictors.gaussian_process import GaussianProcessPredictor
from bitwright.predictors.gradient import gradient_products, gradient_table
from bitwright.predictors.input_moments import OutputErrors
from bitwright.predictors.input_taylor import taylor_scores
from bitwright.predictors.isotonic import IsotonicPredictor
from bitwright.predictors.joint_gradient import geometric_mean, joint_table
from bitwright.predictors.layer_output import layer_output_errors
from bitwright.predictors.losses import FromOriginal, Loss, SampledLabels, TextLabels
from bitwright.predictors.measured import measured_table, measured_table_at
from bitwright.predictors.micro_experts import camera_scores, channel_energies, micro_expert_energies
from bitwright.predictors.mutual_information import information_scores
from bitwright.predictors.noise import noise_coefficients, noise_table
from bitwright.predictors.norm_ratio import pq_index, pq_scores
from bitwright.predictors.output_change import output_change_table
from bitwright.predictors.pairwise import PairwisePredictor, following
from bitwright.predictors.passes import Call, decoder_blocks, watched
from bitwright.predictors.perceptron import PerceptronPredictor
from bitwright.predictors.predictor import Predict, Predictor
from bitwright.predictors.products import AbsoluteProduct, InnerProduct, Product, SquaredOutputChange
from bitwright.predictors.proxies import PROXIES, Passes, Proxy, proxy_named, scores_of
from bitwright.predictors.radial_basis import RadialBasisPredictor
from bitwright.predictors.rare_experts import MINIMUM_TOKENS, floored_table, rare_experts
from bitwright.predictors.ridge import RidgePredictor
from bitwright.predictors.scale import Scale, completed, fit_scale, summed
from bitwright.predictors.scores import scored_table, sized
from bitwright.predictors.shapley import Shapley, random_orders, shapley_marginals, shapley_table
from bitwright.predictors.shrinkage import shrunk_table
from bitwright.predictors.similarity import angular_scores, block_cosines, block_influence_scores, lim_scores
from bitwright.predictors.sparsity_drop import sparsity_scores
from bitwright.predictors.subject import Subject
from bitwright.predictors.surgeon import surgeon_table
from bitwright.predictors.sweep import ORIGINAL, Products, Sweep, measure_products, measure_together, point
from bitwright.predictors.validation import WITHIN_90, Folds, Measured, Validation, cross_validate
from bitwright.predictors.weight_error import absolute_error_table, importance_error_table, weight_error_table
from bitwright.predictors.weight_shape import kurtosis_scores, outlier_scores, zd_scores

__all__ = [
    "IN_NATS",
    "MINIMUM_TOKENS",
    "ORIGINAL",
    "PREDICTORS",
    "PROXIES",
    "PUBLISHED",
    "RELEASED",
    "WITHIN_90",
    "AbsoluteProduct",
    "AdditivePredictor",
    "Agreement",
    "Call",
    "Expansion",
    "ExpertProduct",
    "Folds",
    "FromOriginal",
    "GaussianProcessPredictor",
    "InnerProduct",
    "IsotonicPredictor",
    "Loss",
    "Measured",
    "OutputErrors",
    "PairwisePredictor",
    "Passes",
    "PerceptronPredictor",
    "Predict",
    "Predictor",
    "Product",
    "Products",
    "Proxy",
    "RadialBasisPredictor",
    "Repaired",
    "RidgePredictor",
    "SampledLabels",
    "Scale",
    "Shapley",
    "SquaredOutputChange",
    "Subject",
    "Sweep",
    "TextLabels",
    "Trace",
    "Validation",
    "absolute_error_table",
    "alignment_table",
    "angular_scores",
    "block_cosines",
    "block_influence_scores",
    "block_output_errors",
    "cache_losses",
    "camera_scores",
    "canonical_scores",
    "channel_energies",
    "completed",
    "cross_validate",
    "decoder_blocks",
    "delta_loss_table",
    "drop_losses",
    "droppable",
    "first_order_table",
    "fit_scale",
    "floored_table",
    "following",
    "forced_costs",
    "forced_table",
    "geometric_mean",
    "gradient_products",
    "gradient_table",
    "hessian_trace",
    "importance_error_table",
    "information_scores",
    "joint_table",
    "kurtosis_scores",
    "layer_output_errors",
    "lim_scores",
    "may_drop",
    "measure_products",
    "measure_together",
    "measured_table",
    "measured_table_at",
    "micro_expert_energies",
    "moved",
    "noise_coefficients",
    "noise_table",
    "outlier_scores",
    "output_change_table",
    "point",
    "power_product",
    "pq_index",
    "pq_scores",
    "predictor_named",
    "proxy_named",
    "random_orders",
    "rank_agreement",
    "rank_average",
    "rare_experts",
    "repaired",
    "reweighted",
    "router_scores",
    "scaled_sum",
    "scored_table",
    "scores_of",
    "shapley_marginals",
    "shapley_table",
    "shrunk_table",
    "sized",
    "sparsity_scores",
    "stored",
    "summed",
    "sums",
    "surgeon_table",
    "table_agreement",
    "tables_by_text",
    "taylor_scores",
    "trace_table",
    "watched",
    "weight_error_table",
    "with_cache_losses",
    "with_cache_steps",
    "with_drops",
    "zd_scores",
]
