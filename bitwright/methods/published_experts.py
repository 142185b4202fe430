"""Published methods for the experts of a mixture."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.methods.method import Method, evenly_spaced_budgets
from bitwright.methods.published_tables import FREE, bracket, single_choice
from bitwright.search import Problem, Row, Strategy, at_least, bits_between, given, solve_lagrangian, solve_with_rows, tiered_within
from bitwright.spaces import DROP, PRUNE, Absence, Choice, Format, Space, role_of

_OTHERS_BITS = 4  # bits of all matrices outside the experts
_STRUCTURE = {DROP.name: "experts", PRUNE.name: "channels"}  # kinds that put these formats in the menu
_PRUNED, _PRUNED_BY_ENERGY = 0.25, 0.2  # fractions of the experts of a layer
_TIERS = {8: 0.1, 4: 0.3, 2: 0.6}  # bits, and the share of a layer's experts
#: space, budget in bits -> side constraints of the programme
Rows = Callable[[Space, int], tuple[Row, ...]]


def of_experts(name: str, source: str, differs: str, *, proxy: str, rows: Rows) -> Method:
    """Return a method that gives each expert one of three neighbouring formats by an integer programme on a proxy's table, and 4 bits or more to all
    other matrices.
    """

    def answer(problem: Problem, budget_bits: int) -> Choice:
        space = problem.space
        narrow = _three_formats(_with_others_fixed(space, is_expert(space)), budget_bits)
        table = np.where(narrow.offered, problem.price(proxy), 0.0)
        return solve_with_rows(narrow, table, budget_bits, rows=rows(narrow, budget_bits)).choice

    return replace(where_possible(single_choice(name, source, differs, answer), answer, requires=_experts_for(name)), sensitivity=proxy)


def where_possible(method: Method, answer: Callable[[Problem, int], Choice], *, requires: Callable[[Space], None]) -> Method:
    """Return the method with what it `requires` of a space, and a front of its answers to evenly spaced budgets, without those that are too small for
    it.
    """

    def for_front(problem: Problem, n_points: int) -> Strategy:
        *smaller, largest = evenly_spaced_budgets(problem, n_points)
        answers = [answer(problem, largest)]
        for bits in smaller:
            with suppress(UserError):
                answers.append(answer(problem, bits))
        return given(problem, np.unique(answers, axis=0))

    return replace(method, for_front=for_front, require_space=requires)


def _experts_for(name: str) -> Callable[[Space], None]:
    """Return a function that requires experts that are decided about one by one, for the method called `name`."""

    def require(space: Space) -> None:
        if not is_expert(space).any():
            raise UserError(f"{name} decides about experts, and this space has none of their own: use --target native, with a mixture of experts.")

    return require


def _drops_for(name: str, *absences: Absence) -> Callable[[Space], None]:
    """Return a function that requires the first of `absences` that the space knows to be offered, for the method called `name`."""

    def require(space: Space) -> None:
        absence = next((absence for absence in absences if absence in space.formats), absences[-1])
        if absence not in space.formats or not space.offered[:, space.formats.index(absence)].any():
            raise UserError(
                f"{name} drops experts, and this space drops none: use --target native, with --structure {_STRUCTURE[absence.name]} and a mixture."
            )

    return require


def _require_routed(space: Space) -> None:
    if not _is_routed(space).any():
        raise UserError("eac-moe decides about experts, and this model has none: choose a mixture of experts, or another --method.")


def _is_routed(space: Space) -> NDArray[np.bool_]:
    """Return which units are experts, single or in stacks, `(n_units,)`."""
    return np.array([unit.expert >= 0 or any(role_of(tensor).endswith("_exps") for tensor in unit.tensors) for unit in space.units])


def is_expert(space: Space) -> NDArray[np.bool_]:
    """Return which units are single experts, `(n_units,)`."""
    return np.array([unit.expert >= 0 for unit in space.units])


def in_blocks(space: Space, budget_bits: int) -> tuple[Row, ...]:
    """Constrain the experts of each block to its share of the budget, in proportion to its weights, with at least one expert in each of the two finer
    formats.
    """
    experts, layers = is_expert(space), np.array([unit.layer for unit in space.units])
    n_weights = np.array([unit.n_weights for unit in space.units])
    others = int(np.where(space.offered & ~experts[:, None], space.size_bits, 0).sum())  # they have one format each
    for_experts = budget_bits - space.fixed_bits - others
    blocks = [experts & (layers == layer) for layer in np.unique(layers[experts])]
    shares = [int(for_experts * int(n_weights[block].sum()) // int(n_weights[experts].sum())) for block in blocks]
    limits = (bits_between(space, 0, share, units=block) for block, share in zip(blocks, shares, strict=True))
    return (*limits, *(row for block in blocks for row in _at_least_one(space, block)))


def over_all(space: Space, budget_bits: int) -> tuple[Row, ...]:
    """Constrain each block to at least one expert in each of the two finer formats, with one budget for all blocks."""
    del budget_bits
    experts, layers = is_expert(space), np.array([unit.layer for unit in space.units])
    return tuple(row for layer in np.unique(layers[experts]) for row in _at_least_one(space, experts & (layers == layer)))


def _at_least_one(space: Space, block: NDArray[np.bool_]) -> tuple[Row, ...]:
    return tuple(at_least(space, form, 1, units=block) for form in _widest_first(space, block)[:2])


def _widest_first(space: Space, units: NDArray[np.bool_]) -> list[Format]:
    """List the formats that are offered to all of some units, the widest first."""
    return sorted((space.formats[f] for f in np.flatnonzero(space.offered[units].all(axis=0))), key=lambda form: -form.bits_per_weight)


def _with_others_fixed(space: Space, experts: NDArray[np.bool_]) -> Space:
    """Restrict the units outside `experts` `(n_units,)` to their smallest format of 4 bits or more, or their finest if they have none."""
    width = np.array([form.bits_per_weight for form in space.formats])
    enough = space.offered & (width >= _OTHERS_BITS)
    size = np.where(enough, space.size_bits, np.iinfo(np.int64).max)
    fixed = np.where(enough.any(axis=1), size.argmin(axis=1), space.largest())
    return space.narrowed(experts[:, None] | (np.arange(len(space.formats)) == fixed[:, None]))


def _three_formats(space: Space, budget_bits: int) -> Space:
    """Restrict experts to three neighbouring formats: the two around the budget and the next coarser one, or, if there is none, the next finer one,
    as 1, 2 and 3 bits are at every published budget.
    """
    experts, is_stored = is_expert(space), np.array([not isinstance(form, Absence) for form in space.formats])
    stored = space.narrowed(space.offered & is_stored)
    _, low = bracket(_alone(stored, experts), budget_bits)
    formats = _widest_first(stored, experts)
    last = min(max(formats.index(low) + 2, 3), len(formats))  # coarser than the next coarser one
    named = np.array([form in formats[max(last - 3, 0) : last] for form in space.formats])
    return space.narrowed(~experts[:, None] | named)


def _alone(space: Space, some: NDArray[np.bool_]) -> Space:
    """Return the space of the units `some` `(n_units,)` alone; all others, which have one format each, count as fixed size."""
    return Space(
        tuple(unit for unit, one in zip(space.units, some, strict=True) if one),
        space.formats,
        space.size_bits[some],
        space.offered[some],
        space.fixed_bits + int(np.where(space.offered & ~some[:, None], space.size_bits, 0).sum()),
        space.n_weights,
    )


def _one_for_all(problem: Problem, budget_bits: int) -> Choice:
    """Choose one format for all routed experts, the largest that fits; all other matrices get 4 bits or more."""
    return _one_format(problem.space, _is_routed(problem.space), budget_bits)


def _one_format(space: Space, routed: NDArray[np.bool_], budget_bits: int) -> Choice:
    """Choose one format for the units `routed`, the largest that fits; other units with a choice get 4 bits or more."""
    fixed = _with_others_fixed(space, routed)
    shared = np.flatnonzero(fixed.offered[routed].all(axis=0))
    choices = [np.where(routed, f, fixed.smallest()) for f in shared if not isinstance(space.formats[f], Absence)]
    fitting = [choice for choice in choices if space.total_bits(choice) <= budget_bits]
    if not fitting:
        least = min((space.total_bytes(choice) for choice in choices), default=0)
        raise UserError(
            f"One format for all experts, and {_OTHERS_BITS} bits for all else, must fit; the least takes {least:,} bytes of {budget_bits // 8:,}: "
            "raise the budget, or name coarser --formats."
        )
    return max(fitting, key=lambda choice: int(space.total_bits(choice)))


def _collaborative(problem: Problem, budget_bits: int) -> Choice:
    """Drop the quarter of each layer's experts with the least router score, as far as allowed; choose formats of the others by a Lagrangian."""
    narrow = _without_least(problem, DROP, proxy="router-score", share=_PRUNED)
    return solve_lagrangian(narrow, np.where(narrow.offered, problem.price("importance"), 0.0), budget_bits).choice


def _camera_p(problem: Problem, budget_bits: int) -> Choice:
    """Prune the fifth of each layer's experts, or parts of them, with the least energy, as far as allowed; the other experts get one format."""
    absence = PRUNE if PRUNE in problem.space.formats else DROP
    narrow = _without_least(problem, absence, proxy="camera", share=_PRUNED_BY_ENERGY)
    return _one_format(narrow, is_expert(narrow) & ~narrow.offered[:, narrow.formats.index(absence)], budget_bits)


def _camera_q(problem: Problem, budget_bits: int) -> Choice:
    """Sort the experts of each layer into three tiers by energy, whose widths are scaled to the budget; all other matrices get 4 bits or more."""
    space = problem.space
    experts, layers = is_expert(space), np.array([unit.layer for unit in space.units])
    shared = [form for form in _widest_first(space, experts) if not isinstance(form, Absence)]
    nearest = dict.fromkeys(min(shared, key=lambda form: abs(form.bits_per_weight - bits)) for bits in _TIERS)
    shares = [_TIERS[bits] for bits in _TIERS][: len(nearest) - 1]
    scores = problem.score("camera", space)
    place = np.zeros(len(scores))
    for layer in np.unique(layers[experts]):
        of_layer = np.flatnonzero(experts & (layers == layer))
        place[of_layer[np.argsort(scores[of_layer], kind="stable")]] = np.arange(len(of_layer)) / len(of_layer)
    fixed = _with_others_fixed(space, experts)
    choice = fixed.smallest()
    choice[experts] = tiered_within(_alone(fixed, experts), place[experts], budget_bits, formats=tuple(nearest), ratios=(*shares, 1 - sum(shares)))
    return choice


def _without_least(problem: Problem, absence: Format, *, proxy: str, share: float) -> Space:
    """Restrict the space so that a `share` of each layer's experts, those with the lowest score of a proxy, is in `absence`, as far as allowed, and
    no others.
    """
    space = problem.space
    column = space.formats.index(absence)
    scores, layers = problem.score(proxy, space), np.array([unit.layer for unit in space.units])
    experts, dropped = is_expert(space), np.zeros(len(space.units), dtype=np.bool_)
    for layer in np.unique(layers[experts]):
        of_layer = experts & (layers == layer)
        may_go = np.flatnonzero(of_layer & space.offered[:, column])
        dropped[may_go[np.argsort(scores[may_go], kind="stable")][: round(share * of_layer.sum())]] = True
    return space.narrowed(dropped[:, None] == (np.arange(len(space.formats)) == column))


_PMQ = "MC-MoE (Huang et al., ICLR 2025, arXiv 2410.06270): φ^α w^β ε^γ of each expert, an integer programme"
_FORMATS = "Formats are the two around the budget and the next coarser or, where there is none, finer one (1, 2 and 3 bits there)"

OF_EXPERTS = (
    of_experts("mc-moe", f"{_PMQ} for each block; α = β = 1, γ = 2", f"{_FORMATS}; ε is over all tokens at once.", proxy="pmq", rows=in_blocks),
    of_experts(
        "mc-moe-released",
        f"{_PMQ} for each block; α = 1, β = 1.5 and ε to the power 1, as its released code has it",
        f"{_FORMATS}; ε is over all tokens at once.",
        proxy="pmq-released",
        rows=in_blocks,
    ),
    of_experts(
        "mc-moe-global",
        f"{_PMQ} with one budget for all blocks; α = β = 1, γ = 2",
        f"{_FORMATS}; ε is relative to the block's output, so that blocks compare, and one budget takes the place of one for each block.",
        proxy="pmq",
        rows=over_all,
    ),
    where_possible(
        single_choice(
            "collaborative",
            "Collaborative Compression (CC-MoE): experts pruned by accumulated router score, then formats under a limit of the file",
            "A quarter of each layer's experts is pruned (a fourth or three eighths there); formats are chosen by importance-weighted error and not "
            "by hand; nothing is rescaled.",
            _collaborative,
        ),
        _collaborative,
        requires=_drops_for("collaborative", DROP),
    ),
    where_possible(
        single_choice(
            "camera-p",
            "CAMERA-P (AAAI 2026): of each layer the fifth of micro-experts of least energy is pruned",
            "Experts are pruned, or parts of their channels with --target native-channels, by the energy of all channels in them, and take no bytes "
            "(there channels are set to zero and stay); the rest is in one format.",
            _camera_p,
        ),
        _camera_p,
        requires=_drops_for("camera-p", PRUNE, DROP),
    ),
    replace(
        where_possible(
            single_choice(
                "camera-q",
                "CAMERA-Q (AAAI 2026): the micro-experts of each layer in tiers by energy: a tenth in 8 bits, three in 4, six in 2",
                "Tiers are of experts, or of parts of their channels with --target native-channels, by the energy of all channels in them, in the "
                "nearest formats of the menu, and as wide as the budget allows.",
                _camera_q,
            ),
            _camera_q,
            requires=_experts_for("camera-q"),
        ),
        sensitivity=FREE,
    ),
    replace(
        where_possible(
            single_choice(
                "eac-moe",
                "QESC of EAC-MoE (ACL 2025): one format for all experts, 4 bits for the rest, and routers calibrated layer by layer",
                "Routers are solved for by least squares and not by gradient descent; PESF, which skips experts at inference, is left out.",
                _one_for_all,
            ),
            _one_for_all,
            requires=_require_routed,
        ),
        steps=("router-calibration",),
        sensitivity=FREE,
    ),
)
