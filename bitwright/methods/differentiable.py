"""Differentiable allocation, a method of this project in the family of DNAS, CSQ and GETA."""

from bitwright.errors import UserError
from bitwright.methods.method import Method, evenly_spaced_budgets
from bitwright.objectives import KullbackLeibler
from bitwright.search import Problem, RelaxedOptions, SequentialStrategy, Strategy, relaxed
from bitwright.spaces import Absence, Space


def _require_formats_alone(space: Space) -> None:
    """Require that every offered format stores weights that can be mixed.

    Raises:
        UserError: experts can be dropped or pruned.
    """
    absent = [form.name for form, offered in zip(space.formats, space.offered.T, strict=True) if isinstance(form, Absence) and offered.any()]
    if absent:
        raise UserError(f"relaxed mixes the weights of formats, and {absent[0]} has none: leave it out of --formats, or choose --method auto.")


def _for_budget(problem: Problem, budget_bits: int) -> Strategy:
    return relaxed(problem, budget_bits, table=problem.tables[0], mix=problem.mix, options=RelaxedOptions())


RELAXED = Method(
    "relaxed",
    "this project, after DNAS (Wu et al., 2018), CSQ (Xiao et al., DAC 2023) and GETA (Qu et al., CVPR 2025)",
    "Probabilities of formats alone are trained, by annealing in place of Adam and a penalty, and no weight is; a step mixes formats as the codec "
    "rounds them, and reads 8 sequences forward and backward.",
    KullbackLeibler(),
    _for_budget,
    lambda problem, n_points: SequentialStrategy(_for_budget(problem, bits) for bits in evenly_spaced_budgets(problem, n_points)),
    require_space=_require_formats_alone,
)
