"""Sensitivity proxies by name, each with its source, its cost in passes, and the function that computes its table.

A proxy prices every unit in every format, `(n_units, n_formats)`, without measuring whole plans. To add one, write its file and add one line here.
`bitwright proxies` measures which of them to trust on a given model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion
from bitwright.errors import UserError
from bitwright.plugins import Parts
from bitwright.predictors.sensitivity.activations.block_output import block_output_errors
from bitwright.predictors.sensitivity.activations.canonical import canonical_scores
from bitwright.predictors.sensitivity.activations.expert_product import PUBLISHED, RELEASED, router_scores
from bitwright.predictors.sensitivity.activations.layer_output import layer_output_errors
from bitwright.predictors.sensitivity.activations.micro_experts import camera_scores
from bitwright.predictors.sensitivity.activations.mutual_information import information_scores
from bitwright.predictors.sensitivity.activations.noise import NOISE_LEVELS, noise_coefficients, noise_table
from bitwright.predictors.sensitivity.activations.optimal_brain_surgeon import obs_table
from bitwright.predictors.sensitivity.activations.pruned_output import pruned_output_scores
from bitwright.predictors.sensitivity.activations.similarity import angular_scores, block_cosines, block_influence_scores, lim_scores
from bitwright.predictors.sensitivity.activations.sparsity_drop import sparsity_scores
from bitwright.predictors.sensitivity.gradients.curvature import hessian_trace, trace_table
from bitwright.predictors.sensitivity.gradients.first_order import alignment_table, delta_loss_table, first_order_table
from bitwright.predictors.sensitivity.gradients.gradient import gradient_products, gradient_table
from bitwright.predictors.sensitivity.gradients.input_taylor import taylor_scores
from bitwright.predictors.sensitivity.gradients.joint_gradient import joint_table
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal
from bitwright.predictors.sensitivity.gradients.output_change import output_change_table
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.predictors.sensitivity.measured.one_at_a_time import measured_table, measured_table_at
from bitwright.predictors.sensitivity.measured.shapley import random_orders, shapley_marginals, shapley_table
from bitwright.predictors.sensitivity.names.prior import prior_table
from bitwright.predictors.sensitivity.names.published_models import CREDIT
from bitwright.predictors.sensitivity.ranked_scores import scored_table
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.predictors.sensitivity.weights.pq_index import pq_scores
from bitwright.predictors.sensitivity.weights.weight_error import (
    absolute_error_table,
    importance_error_table,
    weight_error_table,
    weighted_error_table,
)
from bitwright.predictors.sensitivity.weights.weight_shape import kurtosis_scores, outlier_scores, zd_scores
from bitwright.spaces import Choice, Space

Table = NDArray[np.float64]
#: a subject -> a score for each unit `(n_units,)`, high where it is important
Scores = Callable[[Subject], NDArray[np.float64]]
_PROBES = 2
_PERMUTATIONS = 8


@dataclass(frozen=True)
class Passes:
    """Numbers of forward and backward passes over the calibration text, without that of the importance matrix. A backward pass costs about two
    forward passes.
    """

    forward: float
    backward: float

    def tokens(self, n_tokens: int) -> int:
        """Return the number of tokens run through the model, forward and backward, over a text of `n_tokens`."""
        return round((self.forward + self.backward) * n_tokens)


@dataclass(frozen=True, eq=False)
class Proxy:
    """Sensitivity proxy. `price` gives the table `(n_units, n_formats)` of a subject whose formats do `Distortion` to the weights; where a
    pair is not offered its price means nothing. `passes` is what that takes for a space at most: proxies share what they have in common. `score` is
    the score of each unit `(n_units,)` that the table is made of, high where a unit is important, and absent where it is made of something else.
    """

    name: str
    source: str
    passes: Callable[[Space], Passes]
    price: Callable[[Subject, Distortion], Table]
    score: Scores | None = None


def scores_of(name: str, subject: Subject) -> NDArray[np.float64]:
    """Return the scores `(n_units,)` of the units of a subject's space by the proxy of that name, high where a unit is important.

    Raises:
        UserError: there is no such proxy, or it prices formats without a score for each unit.
    """
    proxy = proxy_named(name)
    if proxy.score is None:
        scoring = ", ".join(other.name for other in PROXIES if other.score is not None)
        raise UserError(f"Units are ranked by a proxy that scores them; '{name}' prices their formats: choose from {scoring}.")
    return proxy.score(subject)


def proxy_named(name: str) -> Proxy:
    """Return the proxy of that name.

    Raises:
        UserError: there is no proxy of that name.
        LibraryError: another package declares it, and it cannot be loaded.
    """
    return PROXY_PARTS.named(name)


# --- passes over the calibration text


def _always(forward: float, backward: float) -> Callable[[Space], Passes]:
    return lambda _: Passes(forward, backward)


def _each_pair(space: Space) -> Passes:
    return Passes(1 + int(space.offered.sum()), 0)


def _each_pair_at_a_point(space: Space) -> Passes:
    return Passes(2 + int(space.offered.sum()) - len(space.units), 0)


def _each_format(space: Space) -> Passes:
    n_formats = int(space.offered.any(axis=0).sum())
    return Passes(n_formats, n_formats)


def _each_layer(space: Space) -> Passes:
    return Passes(1 + len({(unit.layer, unit.name if unit.layer < 0 else "") for unit in space.units}), 0)


def _each_block(space: Space) -> Passes:
    n_blocks = len({unit.layer for unit in space.units if unit.layer >= 0})
    return Passes(3 + float(space.offered.sum()) / max(n_blocks, 1), 0)


def _each_block_and_routers(space: Space) -> Passes:
    return Passes(_each_block(space).forward + 1, 0)


def _each_noise(space: Space) -> Passes:
    return Passes(1 + len(space.units) * len(NOISE_LEVELS), 0)


def _each_order(space: Space) -> Passes:
    return Passes(3 + _PERMUTATIONS * (len(space.units) - 1), 0)


# --- tables


def _scoring(name: str, source: str, passes: Callable[[Space], Passes], score: Scores) -> Proxy:
    """Return the proxy whose table is made of a score for each unit; see `scores`."""

    def price(subject: Subject, distortion: Distortion) -> Table:
        return scored_table(score(subject), subject.space, relative_error=distortion.plain)

    return Proxy(name, source, passes, price, score)


def _shrunk_gradient(subject: Subject, distortion: Distortion) -> Table:
    return shrunk_table(gradient_products(subject), importance_error_table(distortion))


def _joint(subject: Subject, distortion: Distortion) -> Table:
    return joint_table(subject, importance_error_table(distortion))


def _weighted(subject: Subject, distortion: Distortion) -> Table:
    return weighted_error_table(distortion, subject.space, levels=subject.levels)


def _prior(subject: Subject, distortion: Distortion) -> Table:
    return prior_table(subject.model.tensors, subject.space.units, relative_error=distortion.plain)


def _trace(subject: Subject, distortion: Distortion) -> Table:
    errors = absolute_error_table(distortion, subject.space, levels=subject.levels)
    return trace_table(hessian_trace(subject, FromOriginal(), n_probes=_PROBES), subject.space, absolute_error=errors)


def _noise(subject: Subject, distortion: Distortion) -> Table:
    return noise_table(noise_coefficients(subject), distortion.plain)


def _shapley(subject: Subject, distortion: Distortion) -> Table:
    low, high = subject.space.smallest(), subject.space.largest()
    orders = random_orders(len(low), _PERMUTATIONS, rng=np.random.default_rng(subject.seed))
    with open_divergence(subject) as divergence:
        found = shapley_marginals(divergence.of_choice, high=high, low=low, orders=orders, progress=subject.progress)
    return shapley_table(found.mean(), low, relative_error=distortion.plain)


def _measured(subject: Subject, _: Distortion) -> Table:
    with open_divergence(subject) as divergence:
        return measured_table(subject.space, divergence.of_one, progress=subject.progress)


def _measured_at(at: Callable[[Space], Choice]) -> Callable[[Subject, Distortion], Table]:
    def price(subject: Subject, _: Distortion) -> Table:
        with open_divergence(subject) as divergence:
            return measured_table_at(subject.space, at(subject.space), divergence.of_choice, progress=subject.progress)

    return price


#: All proxies, from those without a pass over text to the most expensive.
PROXIES = (
    Proxy("weight", "relative weight error", _always(0, 0), lambda _, distortion: weight_error_table(distortion)),
    Proxy("absolute", "weight error", _always(0, 0), lambda s, distortion: absolute_error_table(distortion, s.space, levels=s.levels)),
    Proxy("importance", "importance-weighted error (llama.cpp)", _always(0, 0), lambda _, distortion: importance_error_table(distortion)),
    Proxy("weighted", "weighted error (llama.cpp's target size)", _always(0, 0), _weighted),
    Proxy("prior", f"role, depth and family (tables of {CREDIT})", _always(0, 0), _prior),
    _scoring("zd", "ZD (Layer-Wise Quantization)", _always(0, 0), lambda s: zd_scores(s.space, s.levels)),
    _scoring("kurtosis", "kurtosis (KurtBoost)", _always(0, 0), lambda s: kurtosis_scores(s.space, s.levels)),
    _scoring("outliers", "outlier share (OWL)", _always(0, 0), lambda s: outlier_scores(s.space, s.levels)),
    _scoring("pq-index", "PQ index", _always(0, 0), lambda s: pq_scores(s.space, s.levels)),
    Proxy("layer-output", "layer-output error (AdaRound, GPTQ)", _always(1, 0), lambda s, _: layer_output_errors(s).relative()),
    Proxy("surgeon", "OBS loss (OBC, GPTQ)", _always(1, 0), lambda s, _: obs_table(s)),
    _scoring("lim", "layer input modification (Layer-Wise Quantization)", _always(1, 0), lambda s: lim_scores(block_cosines(s), s.space)),
    _scoring("block-influence", "block influence (ShortGPT)", _always(1, 0), lambda s: block_influence_scores(block_cosines(s), s.space)),
    _scoring("angular", "angular distance (Gromov et al.)", _always(1, 0), lambda s: angular_scores(block_cosines(s), s.space)),
    _scoring("canonical", "canonical correlation (CPTQuant CMPQ)", _always(1, 0), canonical_scores),
    _scoring("router-score", "router score of an expert (Collaborative Compression)", _always(1, 0), router_scores),
    _scoring("camera", "energy of an expert's channels (CAMERA)", _always(1, 0), camera_scores),
    _scoring("pruned-output", "output error of a layer without its smallest weights (Edge-LLM)", _always(1, 0), pruned_output_scores),
    _scoring("information", "mutual information (QPruner)", _always(2, 0), information_scores),
    Proxy("gradient", "Fisher information, shrunk (this project)", _always(1, 1), _shrunk_gradient),
    Proxy("joint", "Fisher information and its diagonal (this project)", _always(1, 1), _joint),
    Proxy("gradient-raw", "Fisher information", _always(1, 1), lambda s, _: gradient_table(gradient_products(s))),
    Proxy("first-order", "|⟨g, ΔW⟩| (LLM-MQ)", _always(1, 1), lambda s, _: first_order_table(s)),
    Proxy("output-change", "Σ(g ⊙ ΔY)² (ModelOpt)", _always(1, 1), lambda s, _: output_change_table(s)),
    _scoring("input-taylor", "input perturbation (CPTQuant TDMPQ)", _always(1, 1), taylor_scores),
    Proxy("alignment", "⟨g, ΔW⟩ at the smallest format (mlx-lm)", _always(2, 1), lambda s, _: alignment_table(s)),
    Proxy("delta-loss", "Σ|g ⊙ ΔW| at each format (AutoRound)", _each_format, lambda s, _: delta_loss_table(s)),
    Proxy("hawq", "Hessian trace (HAWQ)", _always(2, 1 + 2 * _PROBES), _trace),
    _scoring("sparsity", "sparsity drop (CPTQuant PMPQ)", _each_layer, sparsity_scores),
    Proxy("block-output", "block-output error (MC-MoE)", _each_block, lambda s, _: block_output_errors(s).relative()),
    Proxy("pmq", "φ · w · ε² of an expert (MC-MoE)", _each_block_and_routers, lambda s, _: PUBLISHED(s)),
    Proxy("pmq-released", "φ · w^1.5 · ε of an expert (MC-MoE's code)", _each_block_and_routers, lambda s, _: RELEASED(s)),
    Proxy("measured", "one unit at a time", _each_pair, _measured),
    Proxy("measured-fine", "one unit at a time from the largest formats (AMQ)", _each_pair_at_a_point, _measured_at(Space.largest)),
    Proxy("measured-coarse", "one unit at a time from the smallest formats", _each_pair_at_a_point, _measured_at(Space.smallest)),
    Proxy("noise", "Gaussian noise (HIGGS)", _each_noise, _noise),
    Proxy("shapley", "Shapley values over permutations (CoopQ)", _each_order, _shapley),
)
#: the same by name, with those of other packages
PROXY_PARTS = Parts("A sensitivity must be a known proxy", "bitwright.proxies", (Proxy,), {proxy.name: proxy for proxy in PROXIES})
