import json
from dataclasses import replace

import numpy as np

from bitwright.report import Forecast, RunSummary, SearchHistory
from bitwright.report.records import front_json


def test_the_front_is_json(summary: RunSummary) -> None:
    record = json.loads(front_json(summary))
    assert len(record["front"]) == 160
    assert record["budget_bytes"] == 90_000_000
    assert [candidate["label"] for candidate in record["candidates"] if candidate["chosen"]] == ["plan"]
    assert {"measured" in candidate for candidate in record["candidates"]} == {True, False}
    assert record["courses"] == []
    assert "budget_bytes" not in json.loads(front_json(replace(summary, budget=None)))


def test_every_step_of_a_search_is_json(searched: RunSummary, within: SearchHistory) -> None:
    first, second = json.loads(front_json(searched))["courses"]
    assert (first["method"], first["goal_bytes"], first["is_finished"]) == ("auto", 90_000_000, True)
    assert len(first["steps"]) == 60
    last = within.steps[-1]
    assert first["steps"][-1] == {
        "size_bytes": last.size_bytes,
        "nats_per_token": last.nats_per_token,
        "standard_error": last.standard_error,
        "n_sequences": last.n_sequences,
        "tokens": last.tokens,
        "seconds": last.seconds,
        "hypervolume": within.hypervolume[-1],
        "best_nats_per_token": within.incumbent[-1],
    }
    assert (second["method"], second["source"], second["is_finished"]) == ("nsga2", "Deb et al., IEEE TEC 6 (2), 2002", False)
    assert not {"goal_bytes", "forecast"} & {*second}


def test_a_forecast_is_json(searched: RunSummary, within: SearchHistory) -> None:
    forecast = json.loads(front_json(searched))["courses"][0]["forecast"]
    assert isinstance(within.forecast, Forecast)
    assert (forecast["predictor"], forecast["n_plans"], forecast["spearman"]) == ("ridge", 60, 0.987)
    for name, column in (("measured_nats_per_token", within.forecast.measured), ("low", within.forecast.low), ("high", within.forecast.high)):
        np.testing.assert_array_equal([plan[name] for plan in forecast["plans"]], column)


def test_what_is_no_number_is_null(searched: RunSummary, within: SearchHistory) -> None:
    assert isinstance(within.forecast, Forecast)
    unknown = replace(within.forecast, validation=replace(within.forecast.validation, kendall=float("nan")))
    course = replace(within, incumbent=np.append(np.inf, within.incumbent[1:]), forecast=unknown)
    record = json.loads(front_json(replace(searched, courses=(course,))))["courses"][0]
    assert record["steps"][0]["best_nats_per_token"] is None
    assert record["forecast"]["kendall"] is None
