import re

import numpy as np
import pytest

from bitwright.report import Forecast, SearchHistory, Validation
from bitwright.report.charts.forecast_chart import forecast_chart

MARK = re.compile(r'<circle class="(plan|missed)" cx="([\d.]+)%" cy="([\d.]+)" r="3.5"/></g>')


@pytest.fixture(scope="module")
def forecast(within: SearchHistory) -> Forecast:
    assert isinstance(within.forecast, Forecast)
    return within.forecast


def of(measured: np.ndarray, predicted: np.ndarray) -> Forecast:
    figures = Validation("ridge", len(measured), spearman=1.0, kendall=1.0, rmse_nats=0.0, coverage=1.0)
    return Forecast(measured, 0.01 * np.abs(measured), predicted, predicted - 0.02, predicted + 0.02, figures)


def test_every_plan_has_a_mark_and_those_outside_their_interval_another(forecast: Forecast) -> None:
    looks = [look for look, _, _ in MARK.findall(forecast_chart(forecast))]
    assert looks.count("plan") == forecast.is_covered.sum()
    assert looks.count("missed") == (~forecast.is_covered).sum() > 0


def test_what_came_out_as_predicted_lies_on_the_diagonal() -> None:
    measured = np.array([0.04, 0.3, 2.0])
    marks = MARK.findall(forecast_chart(of(measured, measured)))
    places = np.array([(float(x) / 100, 1 - float(y) / 350) for _, x, y in marks])
    np.testing.assert_allclose(places[:, 0], places[:, 1], atol=1e-3)
    assert (np.diff(places[:, 0]) > 0).all()


def test_a_prediction_too_high_lies_above_the_diagonal() -> None:
    ((_, x, y),) = MARK.findall(forecast_chart(of(np.array([0.1]), np.array([0.11]))))
    assert 1 - float(y) / 350 > float(x) / 100


def test_whiskers_run_over_the_interval_and_the_standard_error() -> None:
    chart = forecast_chart(of(np.array([0.1, 0.4]), np.array([0.11, 0.42])))
    whiskers = re.findall(r'<line class="interval" x1="([\d.]+)%" x2="([\d.]+)%" y1="([\d.]+)" y2="([\d.]+)"/>', chart.split("data-tip", 1)[1])
    (left, right, top, bottom), (start, stop, *height) = np.array(whiskers[:2], dtype=float)
    ((_, x, y), _) = MARK.findall(chart)
    assert left == right == float(x)
    assert top < float(y) < bottom
    assert start < float(x) < stop
    assert height == [float(y), float(y)]
    assert "measured  0.1000 ± 0.0010 nats/token\npredicted 0.110\n90 % interval 0.0900 to 0.130" in chart


def test_a_prediction_far_off_or_below_zero_lies_on_the_edge() -> None:
    chart = forecast_chart(of(np.array([0.1, 0.2]), np.array([-1.0, 500.0])))
    assert [float(y) for _, _, y in MARK.findall(chart)] == [350, 0]


def test_of_very_many_some_are_drawn_from_the_least_to_the_most() -> None:
    measured = np.random.default_rng(0).permutation(np.linspace(0.1, 1, 4_000))
    marks = MARK.findall(forecast_chart(of(measured, measured)))
    places = [float(x) for _, x, _ in marks]
    assert len(marks) == 250
    assert places == sorted(places)


def test_nothing_is_drawn_of_nothing() -> None:
    assert forecast_chart(of(np.zeros(0), np.zeros(0))) == ""
    assert forecast_chart(of(np.zeros(2), np.ones(2))) == ""


def test_alike_measurements_are_drawn() -> None:
    assert len(MARK.findall(forecast_chart(of(np.full(3, 0.2), np.full(3, 0.2))))) == 3
