"""Published methods that allocate sparsity or rank. They choose among whatever formats a run has: masks, n of m, pairs of low rank, and bits.

OBC's database of pruned and quantized levels with its dynamic programme is `obc-dp`, its coefficients are `spdy`: a table has a column for every
level, whatever the level does to the weights.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.methods.published_searches import within_budget
from bitwright.methods.published_tables import by_scores, single_choice
from bitwright.objectives import KullbackLeibler
from bitwright.search import Problem, demote, evopress, proportional_reduction, solve, sparsity
from bitwright.spaces import Choice, Space, alone

_GRADIENT = "gradient"
_BITS_ALONE = 3.0  # bits per weight from which codes alone are used


def _pruned_by_index(space: Space, scores: NDArray[np.float64], budget_bits: int) -> Choice:
    """Reduce every matrix in proportion to its PQ index, minus its score; the scale, γ of the paper, is that which meets the budget."""
    return proportional_reduction(space, np.maximum(-scores, 0.0), budget_bits)


def _first_of_one_ranking(problem: Problem, budget_bits: int) -> Choice:
    """Take as many steps of the one ranking as the budget asks for."""
    return demote(problem.space, problem.price(_GRADIENT), budget_bits).choice


def _quantized_first(problem: Problem, budget_bits: int) -> Choice:
    """Choose by the table among codes of every weight alone where the budget has 3 bits per weight for them, and among everything below."""
    space = problem.space
    codes = space.narrowed(np.array([[not form.reduction for form in space.formats]]))
    n_weights = sum(unit.n_weights for unit in space.units)
    is_enough = budget_bits - space.fixed_bits >= _BITS_ALONE * n_weights and codes.offered.any(axis=1).all()
    fits = is_enough and codes.total_bits(codes.smallest()) <= budget_bits
    return solve(codes if fits else space, problem.price(_GRADIENT), budget_bits).choice


BY_PRUNING = (
    within_budget(
        "evopress-sparsity",
        "EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649), its setting for unstructured sparsity: 400 × 64 offspring, three stages of "
        "growing text",
        "Levels are the run's formats (25, 50 and 75 % with S25, S50 and S75) and not a database of equal steps, so that units of one size trade "
        "level for level; all candidates read the same first sequences.",
        objective=KullbackLeibler(),
        for_budget=lambda problem, bits: evopress(problem.unstarted, bits, sparsity(problem.sequence_length)),
    ),
    by_scores(
        "pq-index",
        "PQ index (Diao et al., ICLR 2023, arXiv 2302.05601): matrices pruned in proportion to the share that the index allows, p = ½, q = 1",
        "One scale for all matrices meets the budget, in place of rounds of pruning and training; what a format takes of a matrix counts in bytes.",
        proxy="pq-index",
        key=alone,
        choose=_pruned_by_index,
    ),
    replace(
        single_choice(
            "acip",
            "ACIP (Genzel et al., 2025, arXiv 2502.01717): one ranking of all steps of compression, of which every size takes the first ones",
            "Steps go from format to format and are ranked by the gradient's price per bit, those of a matrix in their order; the paper ranks "
            "singular directions by masks trained under a penalty, and tunes an adapter, which `--step heal` can do here.",
            _first_of_one_ranking,
        ),
        sensitivity=_GRADIENT,
    ),
    replace(
        single_choice(
            "quantize-first",
            "Pruning vs Quantization (Kuzmin et al., NeurIPS 2023, arXiv 2307.02973): codes lose less than masks of the same size, but where both "
            "are extreme",
            "The paper is an analysis without a search; from 3 bits per weight on the optimum within codes is taken, below it that of all formats, "
            "each by the gradient's table.",
            _quantized_first,
        ),
        sensitivity=_GRADIENT,
    ),
)
