"""Check a plan against an engine's loading rules without loading the model, and price each rule."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import open_source
from bitwright.engines import engine_named
from bitwright.errors import UserError
from bitwright.pipeline.pricing.link import link_of
from bitwright.pipeline.run import Run
from bitwright.report import RulePrice, RulePrices
from bitwright.search import solve
from bitwright.spaces import Plan, Rule, RuleViolation, Space, Target, alone, tied

_FACTORS = (1.05, 1.2, 1.4, 1.7, 2.0)


def preflight(plan: Plan, engine: Target) -> tuple[RuleViolation, ...]:
    """Check a plan against an engine's loading rules without loading the model: return the violations, with tensor and rule.

    Reads the names and shapes of the model's tensors, and no weights beyond its fingerprint.

    Raises:
        UserError: the model cannot be read.
    """
    made_for = engine_named(plan.target)
    source = made_for.held(open_source(plan.model.source, made_for.view))
    return engine.rule_violations(source.tensors, plan.formats)


def price_rules(run: Run, engine: Target) -> RulePrices:
    """Return the cost of each loading rule of `engine` on a run's model: the exact optimum of the run's table with that rule and without.

    Raises:
        UserError: the engine has no rules, or has no format of some layers of the run.
    """
    if not (engine.rules or engine.fused):
        raise UserError(f"A price is that of a rule; {engine.name} has none beyond the shapes of its formats: name another engine.")
    weights = run.of_weights
    loaded = np.array([form.name in {known.name for known in engine.formats} for form in weights.space.formats])
    common = weights.tried & loaded
    if not common.any(axis=1).all():
        raise UserError(
            f"Rules are priced with formats that the engine has; for some layers of this run, {engine.name} has none: search for that target instead."
        )
    space = replace(weights.space, offered=common)
    allowed = {rule.name: _allowed(space, rule) for rule in engine.rules}
    kept = {"none": tied(space, alone)}
    kept |= {name: tied(replace(space, offered=space.offered & mask), alone) for name, mask in allowed.items()}
    kept |= {tie.name: tied(space, tie.key) for tie in engine.fused}
    all_allowed = np.logical_and.reduce([space.offered, *allowed.values()])
    kept["all"] = tied(replace(space, offered=all_allowed), engine.together)
    link = link_of(run)
    budgets = _budgets(kept["all"].coarse)
    rows = tuple(
        RulePrice(name, tuple(link(solve(tie.coarse, tie.summed(weights.table), bits).loss).nats_per_token for bits in budgets))
        for name, tie in kept.items()
    )
    return RulePrices(f"{engine.name} {engine.version}", tuple(bits // 8 for bits in budgets), rows)


def _allowed(space: Space, rule: Rule) -> NDArray[np.bool_]:
    """Return the pairs `(n_units, n_formats)` that a rule allows."""
    return np.array([[all(rule.allows(t, form) for t in unit.tensors) for form in space.formats] for unit in space.units])


def _budgets(strictest: Space) -> tuple[int, ...]:
    """Return sizes in bits from just above the smallest choice upwards, where bits are scarce and rules matter most."""
    smallest = strictest.total_bytes(strictest.smallest())
    return tuple(8 * int(smallest * factor) for factor in _FACTORS)
