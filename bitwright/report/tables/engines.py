"""Tables of an engine's rules: the tensors of a plan that violate them, and the price of each rule in divergence."""

from dataclasses import dataclass

from rich.table import Table

from bitwright.report.tables.tabular import titled
from bitwright.spaces import RuleViolation

_ROWS = 20


@dataclass(frozen=True)
class RulePrice:
    """Least predicted divergence, nats/token, at each budget with `rule` as the only rule."""

    rule: str
    nats: tuple[float, ...]


@dataclass(frozen=True)
class RulePrices:
    """Prices of an engine's rules. `budgets_bytes` are multiples of the smallest file; the first row has no rule, the last one all."""

    engine: str
    budgets_bytes: tuple[int, ...]
    rows: tuple[RulePrice, ...]


def rule_violations_table(engine: str, rule_violations: tuple[RuleViolation, ...]) -> Table:
    """Return a table of the first twenty tensors that the engine would not load, with the rule and its source."""
    table = titled(f"Tensors that {engine} would not load", caption=f"{min(len(rule_violations), _ROWS)} of {len(rule_violations)} shown.")
    for heading in ("tensor", "format", "rule", "source"):
        table.add_column(heading, overflow="fold")
    for breach in rule_violations[:_ROWS]:
        table.add_row(breach.tensor, breach.fault, breach.rule, breach.source)
    return table


def rule_prices_table(prices: RulePrices) -> Table:
    """Return a table of the least predicted divergence by budget: with each rule alone, without any and with all."""
    table = titled(f"Price of the rules of {prices.engine}", caption="Predicted nats/token of the best choice within each budget.")
    table.add_column("rule")
    for budget in prices.budgets_bytes:
        table.add_column(f"{budget / 1e6:.2f} MB", justify="right", no_wrap=True)
    for row in prices.rows:
        table.add_row(row.rule, *(f"{nats:.4f}" for nats in row.nats))
    return table
