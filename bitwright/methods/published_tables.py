"""Published methods that choose from a sensitivity table or scores, without measuring choices.

Their choice is then measured once, like any other. A front is their answers to evenly spaced budgets.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.methods.method import Method, evenly_spaced_budgets
from bitwright.objectives import KullbackLeibler
from bitwright.search import (
    Problem,
    Strategy,
    given,
    inverse_importance,
    proportional_reduction,
    solve_in_buckets,
    solve_lagrangian,
    solve_with_rows,
    tiered_within,
    two_tiers,
)
from bitwright.spaces import Choice, Format, Key, Space, by_layer, tied

#: space, scores `(n_units,)` (higher is more important), budget in bits -> choice `(n_units,)`
ByScores = Callable[[Space, NDArray[np.float64], int], Choice]

FREE = "importance"  # a sensitivity that needs no pass besides that of the importance matrix
_LAYERS = (0.3, 0.4, 0.3)  # CPTQuant: fractions of the layers in each tier, the most important first


def by_table(name: str, source: str, differs: str, *, proxy: str) -> Method:
    """Return a method that solves the knapsack of a proxy's table exactly, with side constraints."""

    def answer(problem: Problem, budget_bits: int) -> Choice:
        return solve_with_rows(problem.space, problem.price(proxy), budget_bits, rows=problem.rows).choice

    return replace(single_choice(name, source, differs, answer), sensitivity=proxy, takes_side_limits=True)


def in_buckets(name: str, source: str, differs: str, *, proxy: str) -> Method:
    """Return a method that solves the knapsack of a proxy's table with a budget in buckets."""

    def answer(problem: Problem, budget_bits: int) -> Choice:
        return solve_in_buckets(problem.space, problem.price(proxy), budget_bits).choice

    return replace(single_choice(name, source, differs, answer), sensitivity=proxy)


def by_multiplier(name: str, source: str, differs: str, *, proxy: str) -> Method:
    """Return a method that spends the budget on a proxy's table by one price per bit and then by exchanges."""

    def answer(problem: Problem, budget_bits: int) -> Choice:
        return solve_lagrangian(problem.space, problem.price(proxy), budget_bits).choice

    return replace(single_choice(name, source, differs, answer), sensitivity=proxy)


def by_scores(name: str, source: str, differs: str, *, proxy: str, key: Key, choose: ByScores) -> Method:
    """Return a method that ranks groups of units by a proxy's score of each group."""

    def answer(problem: Problem, budget_bits: int) -> Choice:
        tie = tied(problem.space, key)
        return tie.expanded(choose(tie.coarse, problem.score(proxy, tie.coarse), budget_bits))

    return replace(single_choice(name, source, differs, answer), sensitivity=FREE)


def single_choice(name: str, source: str, differs: str, answer: Callable[[Problem, int], Choice]) -> Method:
    """Return a method that measures one choice per budget."""

    def for_budget(problem: Problem, budget_bits: int) -> Strategy:
        return given(problem, answer(problem, budget_bits)[None])

    def for_front(problem: Problem, n_points: int) -> Strategy:
        answers = [answer(problem, bits) for bits in evenly_spaced_budgets(problem, n_points)]
        return given(problem, np.unique(answers, axis=0))

    return Method(name, source, differs, KullbackLeibler(), for_budget, for_front)


def bracket(space: Space, budget_bits: int) -> tuple[Format, Format]:
    """Return two neighbours among the formats that all units are offered: one with which a uniform allocation exceeds the budget, and one with which
    it fits; the same format twice if even the largest fits.

    Raises:
        UserError: no format is offered to all units, or none of them fits.
    """
    shared = sorted((f for f in np.flatnonzero(space.offered.all(axis=0))), key=lambda f: -int(space.size_bits[:, f].sum()))
    sizes = [int(space.size_bits[:, f].sum()) + space.fixed_bits for f in shared]
    fitting = [i for i, size in enumerate(sizes) if size <= budget_bits]
    if not fitting:
        raise UserError(
            f"A method of two formats needs one that all units are offered within the budget of {budget_bits // 8:,} bytes; this space has "
            f"{', '.join(space.formats[f].name for f in shared) or 'none'} for all: raise the budget, or name other --formats."
        )
    return space.formats[shared[max(fitting[0] - 1, 0)]], space.formats[shared[fitting[0]]]


def _two_levels(space: Space, scores: NDArray[np.float64], budget_bits: int) -> Choice:
    high, low = bracket(space, budget_bits)
    return two_tiers(space, scores, budget_bits, high=high, low=low)


def _three_tiers(space: Space, scores: NDArray[np.float64], budget_bits: int) -> Choice:
    """Return the choice in three tiers: the two formats around the budget and the next coarser one."""
    high, low = bracket(space, budget_bits)
    coarser = [form for f, form in enumerate(space.formats) if space.offered[:, f].all() and form.bits_per_weight < low.bits_per_weight]
    formats = (high, low, max(coarser, key=lambda form: form.bits_per_weight)) if coarser else (high, low, low)
    return tiered_within(space, scores, budget_bits, formats=formats, ratios=_LAYERS)


def _proportional(space: Space, scores: NDArray[np.float64], budget_bits: int) -> Choice:
    """Reduce the bits of a layer in proportion to 1 − s, where s is its score scaled to [0, 1]."""
    return proportional_reduction(space, inverse_importance(scores), budget_bits)


BY_TABLES = (
    by_table(
        "hawq",
        "HAWQ-V3 (Yao et al., ICML 2021): Hessian trace × ‖ΔW‖², an integer programme",
        "The trace is that of the divergence and not of a task's loss; the programme is solved exactly by dynamic programming.",
        proxy="hawq",
    ),
    by_table(
        "higgs",
        "HIGGS (Malinovskii et al., NAACL 2025, arXiv 2411.17525): linear coefficients from injected noise, a knapsack",
        "The quantizer is the run's own and not HIGGS's grids.",
        proxy="noise",
    ),
    by_table(
        "modelopt",
        "NVIDIA ModelOpt auto_quantize, gradient: Σ(g ⊙ ΔY)², a 0/1 programme",
        "Every matrix decides alone; scores are not forced to fall with bits; the budget counts stored bytes.",
        proxy="output-change",
    ),
    in_buckets(
        "obc-dp",
        "OBC (Frantar & Alistarh, NeurIPS 2022, arXiv 2208.11580): layer losses, dynamic programming over 10,000 buckets of the budget",
        "The layer losses are those of the run's codec, Σ(w − q)²/diag(H⁻¹)², without compensation.",
        proxy="surgeon",
    ),
    by_multiplier(
        "llama-quantize",
        "llama-quantize with a target size (llama.cpp's pull request 15550, not released): Σ d ΔW² of sampled rows, a Lagrangian",
        "Its penalty for errors along the mean activations is left out, since an importance matrix does not hold them; what the multiplier leaves of "
        "the budget goes into the best exchanges.",
        proxy="weighted",
    ),
    by_scores(
        "layerwise-lim",
        "Layer-Wise Quantization (Dumitru et al., 2024, arXiv 2406.17415): layers by −cos(input, output), two levels",
        "The two levels are those around the budget.",
        proxy="lim",
        key=by_layer,
        choose=_two_levels,
    ),
    by_scores(
        "layerwise-zd",
        "Layer-Wise Quantization (Dumitru et al., 2024, arXiv 2406.17415): layers by their share of weights with a z-score above 1, two levels",
        "The two levels are those around the budget.",
        proxy="zd",
        key=by_layer,
        choose=_two_levels,
    ),
    by_scores(
        "edge-llm",
        "Edge-LLM (Yu et al., DAC 2024): layers by the output error of their matrices without 5 to 90 % of their weights, scaled to s, and 1 − s",
        "Bits are taken away by the proportional rule that the paper has for pruning ratios (its bits are set by hand), and renormalised to meet the "
        "budget; weights are pruned by magnitude; errors belong to the layers they were measured on, which the released code mixes up.",
        proxy="pruned-output",
        key=by_layer,
        choose=_proportional,
    ),
    by_scores(
        "cptquant",
        "CPTQuant (Nanda et al., 2024): layers by canonical correlation (CMPQ), three tiers",
        "Ties of the paper's three scores are not broken by another: `--sensitivity sparsity` and `input-taylor` are its other two.",
        proxy="canonical",
        key=by_layer,
        choose=_three_tiers,
    ),
)
