from dataclasses import replace
from io import StringIO
from json import loads

import pytest
from rich.console import Console

from bitwright.report import RunSummary, ShippedCandidate, Shipping
from bitwright.report.page import page
from bitwright.report.records import front_json
from bitwright.report.shipping import shipping_table

SHIPPING = Shipping(
    "rtn",
    "gptq (sequential)",
    (
        ShippedCandidate("knapsack", 2_000_000, (0.5, 0.01), (0.3, 0.01), chosen=False),
        ShippedCandidate("search 1 <b>", 1_900_000, (0.6, 0.01), (0.25, 0.01), chosen=True),
    ),
    float("nan"),
    float("nan"),
)


def text(shipping: Shipping) -> str:
    told = Console(width=100, file=StringIO())
    told.print(shipping_table(shipping))
    return " ".join(told.file.getvalue().split())  # type: ignore[attr-defined]


def test_the_best_as_shipped_comes_first_and_the_ranks_are_told() -> None:
    told = text(replace(SHIPPING, spearman=0.8, kendall=0.6))
    assert told.index("search 1") < told.index("knapsack")
    assert "► search 1" in told
    assert "Spearman 0.8" in told
    assert "Kendall 0.6" in told
    assert "Searched with rtn, shipped with gptq (sequential)" in told


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_the_page_and_the_record_have_it_only_where_there_is_one(summary: RunSummary, value: float) -> None:
    assert "As shipped" not in page(summary)
    assert "shipping" not in loads(front_json(summary))
    other = replace(summary, shipping=replace(SHIPPING, spearman=value))
    assert "search 1 &lt;b&gt;" in page(other)
    record = loads(front_json(other))["shipping"]
    assert record["spearman"] == (0.5 if value == 0.5 else None)
    assert record["candidates"][1]["shipped"] == [0.25, 0.01]
