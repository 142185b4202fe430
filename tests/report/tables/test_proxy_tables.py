from dataclasses import replace
from io import StringIO
from math import nan

import numpy as np
from rich.console import Console
from rich.table import Table

from bitwright.report import ProxyComparison, ProxyCost, RankedProxy, Ranks
from bitwright.report.tables.proxy_tables import agreement_table, costs_table, proxies_table, verdict

UNKNOWN = Ranks(nan, nan, nan, nan)


def judged(name: str, alike: float, every: float = 0.9, width: float = 0.1) -> RankedProxy:
    ranks = [UNKNOWN if np.isnan(value) else Ranks(value, value - width, value + width, value - 0.2) for value in (every, alike)]
    return RankedProxy(name, *ranks)


def comparison(*proxies: RankedProxy) -> ProxyComparison:
    n = len(proxies)
    among = np.arange(n * n, dtype=float).reshape(n, n) / 100
    return ProxyComparison(proxies, np.triu(among) + np.triu(among, 1).T, 30, 12, (0.01, 2.0), (0.2, 0.41234))


def printed(table: Table) -> str:
    console = Console(width=80, file=StringIO(), highlight=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_most_trustworthy_comes_first() -> None:
    made = comparison(judged("poor", 0.1), judged("silent", nan, 0.3), judged("good", 0.8), judged("quiet", nan, 0.4))
    assert [made.proxies[i].name for i in made.ranked] == ["good", "poor", "quiet", "silent"]
    lines = printed(proxies_table(made)).splitlines()
    rows = [next(line for line in lines if f" {name} " in line) for name in ("good", "poor", "quiet", "silent")]
    assert [lines.index(row) for row in rows] == sorted(lines.index(row) for row in rows)
    assert "0.800 [0.70, 0.90]" in rows[0]
    assert "–" in rows[2]
    text = " ".join("".join(lines).split())
    for figure in ("30 plans", "0.0100 to 2.00 nats/token", "12 of them of equal size", "0.200 to 0.412 nats/token"):
        assert figure in text


def test_agreement_is_in_the_order_of_the_first_table() -> None:
    made = comparison(judged("a", 0.1), judged("b", 0.9), judged("c", 0.5))
    lines = printed(agreement_table(made)).splitlines()
    rows = {name: next(line.split() for line in lines if f" {name} " in line) for name in "abc"}
    assert rows == {"b": ["1", "b"], "c": ["2", "c", "5"], "a": ["3", "a", "1", "2"]}


def test_thirty_proxies_fit_into_eighty_columns() -> None:
    made = replace(comparison(*(judged(f"proxy-number-{i:02}", i / 100) for i in range(30))), among=np.full((30, 30), -0.994))
    assert "Only the first 12" in " ".join(printed(agreement_table(made)).split())
    row = next(line for line in printed(agreement_table(made)).splitlines() if "proxy-number-18" in line)
    assert row.split() == ["12", "proxy-number-18", *11 * ["-99"]]
    assert all("…" not in printed(table) for table in (agreement_table(made), proxies_table(made)))


def test_what_proxies_take_is_told() -> None:
    told = printed(costs_table((ProxyCost("a", "what a is", 12, 1.0), ProxyCost("b", "what b is", 31.8, 0))))
    assert "12 + 1" in told
    assert "32 + 0" in told
    assert "what b is" in told


def test_the_verdict_names_the_best_and_what_is_as_good() -> None:
    made = comparison(judged("far", 0.2), judged("best", 0.8), judged("near", 0.75))
    assert (
        verdict(made) == "On this model and text, trust best: it ranks plans of equal size with Spearman 0.800. These plans cannot tell it from near."
    )
    assert verdict(comparison(judged("far", 0.2), judged("best", 0.8))).endswith("Spearman 0.800.")
    assert "measure more" in verdict(comparison(judged("a", nan, nan)))
