"""Default search: a knapsack optimum of the sensitivity table, improved by gradient steps and by Bayesian optimisation.

1. Measure the starting choices, first on `_GLANCE` sequences: the exact optimum of the table, of a second table, the best uniform allocations. They
   race against the first, which shows what a difference between choices must be for the text to tell it: the standard error of a paired difference,
   on all of the text smaller by the root of the number of sequences. If prices without any error would gain less than that, the search ends here;
   if they would gain nothing, and the table puts its optimum near the original, before anything is measured.
2. Where an expansion is available and the best choice is farther than `FAR` from the original, replace the table by gradients at the best choice,
   around which the divergence is

       KL(c → c') ≈ Σ_u slope[u, c'_u] + damping · curvature[u, c'_u]

   The exact knapsack of that sum is the next choice; a step that fails raises the damping (Levenberg & Marquardt's rule).
3. Fit the predictor to all measurements, and measure the choices of largest expected improvement among exchanges of bits around the best choice and
   exact optima of perturbed tables (Jones, Schonlau & Welch, Journal of Global Optimization 13, 1998).
4. For a budget, stop when for some rounds no candidate's expected improvement reaches `WORTH_IT` standard errors of a paired difference, as measured
   in the races so far: the text could not tell it from chance. Each of these rounds measures one choice only.

A slope is a derivative at the choice itself, so it contains the effect of all other units' errors on this one, which no additive table does.
"""

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.constrained import row_prices, solve_with_rows
from bitwright.search.solvers.format_draws import drawn_by_format
from bitwright.search.solvers.front import hull, spread
from bitwright.search.solvers.instance import checked_table, room_bits
from bitwright.search.solvers.knapsack import solve
from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.neighbours import Neighbourhood, all_together
from bitwright.search.strategies.problem import Expand, Problem, Table
from bitwright.search.strategies.strategy import Question, Refit, Strategy, Trials, asked
from bitwright.search.strategies.surrogate import expected_improvement
from bitwright.spaces import Choice, Choices, Space

WORTH_IT = 2.0
FAR = 0.1  # nats/token: nearer to the original, the table is itself a valid expansion
_GLANCE = 8  # sequences that say whether there is anything to search for
_SURELY_NEAR = FAR / 4  # by the table, whose sums may be off by a factor
_AT_ONCE = 4
_PATIENCE = 3  # rounds in a row without a promising candidate: a predictor fitted to a handful of choices is overconfident
_N_SWAPS, _N_PERTURBED = 256, 24
_SPREADS = (0.05, 0.15, 0.4)  # standard deviations of the logarithm of a perturbed loss
_FIRST_DAMPING, _LAST_DAMPING = 2.0, 16.0
_SLIVER = 5e-6  # share of the dominated area that makes a choice worth measuring for a front
_STEPS = 4  # expansions at most: later ones brought no gain in experiments


def auto(problem: Problem, budget_bits: int, *, tables: Sequence[Table], refit: Refit, expand: Expand | None = None) -> Strategy:
    """Return the strategy that searches for the best choice whose file has at most `budget_bits` and which satisfies the problem's rows.

    The first of the `tables` `(n_units, n_formats)` has the sensitivities in nats/token; the optima of the others are measured too. `refit` fits the
    predictor. Each call of `expand` costs a sweep of forward and backward passes; without it, step 2 is left out.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space, or is not finite where a format is offered; the rows are infeasible together.
    """
    checked_table(problem.space, tables[0])
    room_bits(problem.space, budget_bits)
    return GeneratorStrategy(problem, _for_budget(problem, budget_bits, tables=tables, refit=refit, expand=expand))


def auto_front(problem: Problem, *, table: Table, refit: Refit, n_points: int) -> Strategy:
    """Return the strategy that searches for the whole front: `n_points` of the predicted front first, then the largest expected improvements of it.

    Raises:
        UserError: the table has another shape than the space, or is not finite where a format is offered; `n_points` is below 2.
    """
    front = hull(problem.space, table)
    first = front.choices[spread(front, n_points)]
    return GeneratorStrategy(problem, _for_front(problem, np.concatenate([problem.start, first]), table=table, refit=refit))


def _for_budget(problem: Problem, budget_bits: int, *, tables: Sequence[Table], refit: Refit, expand: Expand | None) -> Asking:
    seen, rng = Seen(), problem.random()
    optima = [_optimum(problem, table, budget_bits) for table in tables]
    prices = row_prices(problem.space, tables[0], budget_bits, rows=problem.rows)
    if _is_sure(problem, budget_bits, table=tables[0], prices=prices, choice=optima[0]):
        return
    first = seen.new(np.concatenate([optima, problem.start_within(budget_bits)]))
    known = yield Question(first, min(_GLANCE, problem.n_sequences), optima[0][None])
    if _is_settled(problem, budget_bits, table=tables[0], prices=prices, known=known):
        return
    if problem.n_sequences > _GLANCE:
        known = known.joined((yield Question(first, problem.n_sequences, optima[0][None])))
        if _is_settled(problem, budget_bits, table=tables[0], prices=prices, known=known):
            return
    if expand is not None and _is_far(known):
        known = yield from _descend(problem, budget_bits, expand=expand, seen=seen, known=known)
    around, n_hopeless = Neighbourhood(problem.space, budget_bits, all_together), 0
    while n_hopeless < _PATIENCE:
        best = _best(known)
        perturbed = [solve(problem.space, _perturbed(problem.space, tables[0], rng, i) + prices, budget_bits).choice for i in range(_N_PERTURBED)]
        pool = problem.kept(np.concatenate([around.swaps(best, n_at_most=_N_SWAPS, rng=rng), perturbed]))
        pool = pool[seen.lacks(pool)]
        gains = _expected_gains(refit, known, pool, below=_value_of(known, best))
        chosen = _promising(gains, _AT_ONCE)
        if not len(chosen):
            return
        is_hopeless = gains[chosen[0]] < WORTH_IT * _noise(known)
        n_hopeless, chosen = (n_hopeless + 1, chosen[:1]) if is_hopeless else (0, chosen)
        known = known.joined((yield Question(seen.new(pool[chosen]), problem.n_sequences, best[None])))


def _descend(problem: Problem, budget_bits: int, *, expand: Expand, seen: Seen, known: Trials) -> Generator[Question, Trials, Trials]:
    """Run step 2 and return all trials known at its end."""
    damping = _FIRST_DAMPING
    for _ in range(_STEPS):
        best = _best(known)
        slopes, curvatures = expand(best)
        while damping <= _LAST_DAMPING:
            step = _optimum(problem, slopes + damping * curvatures, budget_bits)
            if len(new := seen.new(step[None])):
                known = known.joined((yield Question(new, problem.n_sequences, best[None])))
                if (_best(known) == step).all():
                    break
            damping *= 2
        else:
            return known
    return known


def _for_front(problem: Problem, first: Choices, *, table: Table, refit: Refit) -> Asking:
    space, seen, rng = problem.space, Seen(), problem.random()
    known = yield asked(seen.new(first), problem.n_sequences)
    sizes = space.total_bits(first)
    while True:
        budgets = rng.uniform(sizes.min(), sizes.max(), 4 * _N_PERTURBED)
        pool = np.unique([solve(space, _perturbed(space, table, rng, i), int(bits)).choice for i, bits in enumerate(budgets)], axis=0)
        pool = pool[seen.lacks(pool)]
        chosen = _filling(space, known, pool, refit=refit) if len(pool) else []
        if not len(chosen):
            return
        known = known.joined((yield asked(seen.new(pool[chosen]), problem.n_sequences)))


def _filling(space: Space, known: Trials, pool: Choices, *, refit: Refit) -> list[int]:
    """Return the indices of up to `2 * _AT_ONCE` choices of the pool with the largest expected hypervolume improvement, chosen greedily.

    The expected hypervolume improvement (Emmerich, Giannakoglou & Naujoks, IEEE Transactions on Evolutionary Computation 10, 2006), which has a
    closed form where size is exact: a sum of expected improvements over the steps of the front. A chosen one counts with its predicted value
    before the next is chosen.
    """
    mean, deviation = refit(known.choices, known.values[:, 0], known.errors[:, 0])(pool)
    bits, nats = space.total_bits(known.choices).astype(np.float64), known.values[:, 0]
    size, reference, chosen = space.total_bits(pool).astype(np.float64), float(nats.max()), list[int]()
    whole = reference * (bits.max() - bits.min())
    while len(chosen) < 2 * _AT_ONCE:
        order = np.argsort(bits, kind="stable")
        edges = np.concatenate([[-np.inf], bits[order], [max(bits.max(), size.max())]])
        level = np.append(reference, np.minimum.accumulate(nats[order]))  # (n_steps,) from each edge to the next
        width = np.maximum(edges[1:] - np.maximum(edges[:-1], size[:, None]), 0)  # (n_pool, n_steps)
        areas = (width * expected_improvement(level - mean[:, None], deviation[:, None])).sum(axis=1)
        best = int(areas.argmax())
        if areas[best] < WORTH_IT * _SLIVER * whole or best in chosen:
            break
        chosen.append(best)
        bits, nats = np.append(bits, size[best]), np.append(nats, mean[best])
    return chosen


def _optimum(problem: Problem, table: Table, budget_bits: int) -> Choice:
    return solve_with_rows(problem.space, table, budget_bits, rows=problem.rows).choice


def _is_far(known: Trials) -> bool:
    return _value_of(known, _best(known)) > FAR


def _is_sure(problem: Problem, budget_bits: int, *, table: Table, prices: Table, choice: Choice) -> bool:
    """Return whether the table puts its optimum near the original, by formats that only round, and would have the same one whatever its errors."""
    formats, offered = problem.space.formats, problem.space.offered
    only_rounds = not any(form.reduction for form, column in zip(formats, offered.T, strict=True) if column.any())
    is_near = float(table[np.arange(len(table)), choice].sum()) <= _SURELY_NEAR
    return only_rounds and is_near and not _share_lost(problem, budget_bits, table=table, prices=prices, choice=choice)


def _is_settled(problem: Problem, budget_bits: int, *, table: Table, prices: Table, known: Trials) -> bool:
    """Return whether prices without any error would gain less than all of the text can tell, by the sequences that were measured."""
    if _is_far(known):
        return False
    noise = _noise(known) * np.sqrt(known.n_sequences.max() / problem.n_sequences)
    return _worth_of_prices(problem, budget_bits, table=table, prices=prices, known=known) <= WORTH_IT * float(noise)


def _worth_of_prices(problem: Problem, budget_bits: int, *, table: Table, prices: Table, known: Trials) -> float:
    """Return the expected value of perfect information about the table's prices, in nats/token: what the best choice costs beyond the optimum where
    the prices are off by the largest of `_SPREADS` (Raiffa & Schlaifer, Applied Statistical Decision Theory, 1961).
    """
    best = _best(known)
    return _share_lost(problem, budget_bits, table=table, prices=prices, choice=best) * _value_of(known, best)


def _share_lost(problem: Problem, budget_bits: int, *, table: Table, prices: Table, choice: Choice) -> float:
    """Return the same as a share of what the table says that the choice costs."""
    rng, units, losses = np.random.default_rng([problem.seed, 1]), np.arange(len(table)), list[float]()
    for _ in range(_N_PERTURBED):
        true = _perturbed(problem.space, table, rng, len(_SPREADS) - 1)
        optimum = solve(problem.space, true + prices, budget_bits).choice
        losses.append(float(true[units, choice].sum() - true[units, optimum].sum()))
    summed = float(table[units, choice].sum())
    return max(float(np.mean(losses)), 0.0) / summed if summed > 0 else 0.0


def _perturbed(space: Space, table: Table, rng: np.random.Generator, index: int) -> Table:
    """Multiply the table by log-normal noise per unit and per pair; the spreads take turns by `index`."""
    spread_of_logs, n_units = _SPREADS[index % len(_SPREADS)], len(table)
    units, pairs = rng.normal(size=(n_units, 1)), drawn_by_format(space, lambda n_formats: rng.normal(size=(n_units, n_formats)))
    noisy: Table = table * np.exp(spread_of_logs * (units + pairs / 2))
    return noisy


def _expected_gains(refit: Refit, known: Trials, pool: Choices, *, below: float) -> NDArray[np.float64]:
    """Expected improvement of each choice of the pool below `below`, in nats/token `(n_pool,)`."""
    if not len(pool):
        return np.zeros(0)
    mean, deviation = refit(known.choices, known.values[:, 0], known.errors[:, 0])(pool)
    return expected_improvement(below - mean, deviation)


def _promising(gains: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return the indices of the `n` largest gains, the largest first."""
    return np.argsort(-gains, kind="stable")[:n]


def _best(known: Trials) -> Choice:
    """Return the choice of least divergence among those measured in full."""
    full = known.only(known.n_sequences == known.n_sequences.max())
    best: Choice = full.choices[full.values[:, 0].argmin()]
    return best


def _value_of(known: Trials, choice: Choice) -> float:
    return float(known.values[(known.choices == choice).all(axis=1), 0][0])


def _noise(known: Trials) -> float:
    """Standard error of a paired difference on all of the text: the median of the races measured in full, 0 before the first.

    A choice's own standard error does not measure it: most of that is the variation of the text, which both choices share, and with it a search
    would stop at once.
    """
    full = (known.paired_errors > 0) & (known.n_sequences == known.n_sequences.max())  # not NaN
    return float(np.median(known.paired_errors[full])) if full.any() else 0.0
