"""Predict the divergence of plans: sensitivity tables of single units, and surrogate models of whole plans."""

from bitwright.predictors.plans.agreement import Agreement, rank_agreement, sums, table_agreement
from bitwright.predictors.plans.by_name import NamedPredictor, predictor_named
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.scale import Scale, completed, fit_scale, summed
from bitwright.predictors.plans.validation import Folds, Measured, Validation, cross_validate
from bitwright.predictors.sensitivity.activations.mean_activations import mean_activations
from bitwright.predictors.sensitivity.activations.micro_experts import channel_energies
from bitwright.predictors.sensitivity.activations.reap import expert_saliencies
from bitwright.predictors.sensitivity.activations.relative_contributions import relative_contributions
from bitwright.predictors.sensitivity.activations.similarity import block_cosines, part_influences, span_distances
from bitwright.predictors.sensitivity.block_hooks import Call, hook_blocks
from bitwright.predictors.sensitivity.by_name import PROXIES, PROXY_PARTS, Passes, Proxy, proxy_named, scores_of
from bitwright.predictors.sensitivity.channel_scoring import ChannelScoring
from bitwright.predictors.sensitivity.gradients.by_text import tables_by_text
from bitwright.predictors.sensitivity.gradients.expected_squares import expected_squares
from bitwright.predictors.sensitivity.gradients.gradient import gradient_products
from bitwright.predictors.sensitivity.gradients.kronecker_factors import kronecker_losses
from bitwright.predictors.sensitivity.gradients.mixture import Mixtures
from bitwright.predictors.sensitivity.gradients.second_order import Expansion
from bitwright.predictors.sensitivity.measured.cache_losses import cache_losses, with_cache_losses, with_cache_steps
from bitwright.predictors.sensitivity.measured.dropped_experts import NATS_PROXIES, drop_losses, limit_drops, may_drop, moved, stored, with_drops
from bitwright.predictors.sensitivity.measured.forced_routing import forced_table
from bitwright.predictors.sensitivity.measured.rare_experts import MINIMUM_TOKENS, floored_table, rare_experts
from bitwright.predictors.sensitivity.measured.shapley import random_orders, shapley_marginals
from bitwright.predictors.sensitivity.row_samples import row_sample, rows_wanted
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.predictors.sensitivity.subject import Elsewhere, Subject, SubjectPart
from bitwright.predictors.sensitivity.weights.weight_error import importance_error_table

__all__ = [
    "MINIMUM_TOKENS",
    "NATS_PROXIES",
    "PROXIES",
    "PROXY_PARTS",
    "Agreement",
    "Call",
    "ChannelScoring",
    "Elsewhere",
    "Expansion",
    "Folds",
    "Measured",
    "Mixtures",
    "NamedPredictor",
    "Passes",
    "Predict",
    "Predictor",
    "Proxy",
    "Scale",
    "Subject",
    "SubjectPart",
    "Validation",
    "block_cosines",
    "cache_losses",
    "channel_energies",
    "completed",
    "cross_validate",
    "drop_losses",
    "expected_squares",
    "expert_saliencies",
    "fit_scale",
    "floored_table",
    "forced_table",
    "gradient_products",
    "hook_blocks",
    "importance_error_table",
    "kronecker_losses",
    "limit_drops",
    "may_drop",
    "mean_activations",
    "moved",
    "part_influences",
    "predictor_named",
    "proxy_named",
    "random_orders",
    "rank_agreement",
    "rare_experts",
    "relative_contributions",
    "require_samples",
    "row_sample",
    "rows_wanted",
    "scores_of",
    "shapley_marginals",
    "span_distances",
    "stored",
    "summed",
    "sums",
    "table_agreement",
    "tables_by_text",
    "with_cache_losses",
    "with_cache_steps",
    "with_drops",
]
