from dataclasses import replace

import numpy as np
import pytest

from bitwright.report import Forecast, SearchHistory, SizeLimit


def test_what_was_spent_is_that_of_the_last_step(within: SearchHistory) -> None:
    assert (within.tokens, within.seconds) == (within.steps[-1].tokens, within.steps[-1].seconds)
    nothing = replace(within, steps=(), hypervolume=np.zeros(0), incumbent=np.zeros(0))
    assert (nothing.tokens, nothing.seconds) == (0, 0.0)


def test_a_column_of_another_length_is_refused(within: SearchHistory) -> None:
    with pytest.raises(ValueError, match="60 steps need as many"):
        replace(within, hypervolume=within.hypervolume[1:])
    with pytest.raises(ValueError, match="60 steps need as many"):
        replace(within, incumbent=within.incumbent[1:])


def test_no_number_is_missing_but_an_incumbent_that_is_not_there_yet(within: SearchHistory) -> None:
    replace(within, incumbent=np.full(60, np.inf))
    with pytest.raises(ValueError, match="is no NaN"):
        replace(within, incumbent=np.full(60, np.nan))
    with pytest.raises(ValueError, match="finite"):
        replace(within, hypervolume=np.full(60, np.nan))


def test_an_incumbent_keeps_the_goal(within: SearchHistory) -> None:
    with pytest.raises(ValueError, match="at most 1 bytes"):
        replace(within, goal=SizeLimit(1))


def test_nothing_is_given_back(within: SearchHistory) -> None:
    with pytest.raises(ValueError, match="never falls"):
        replace(within, steps=within.steps[::-1])


def test_a_forecast_is_of_all_its_plans(within: SearchHistory) -> None:
    forecast = within.forecast
    assert isinstance(forecast, Forecast)
    with pytest.raises(ValueError, match="of 60 plans has columns of shapes"):
        replace(forecast, low=forecast.low[1:])
    with pytest.raises(ValueError, match="finite"):
        replace(forecast, standard_error=np.full(60, np.inf))
    with pytest.raises(ValueError, match="within its interval"):
        replace(forecast, low=forecast.high, high=forecast.low)


def test_held_are_those_within_their_ends(within: SearchHistory) -> None:
    forecast = within.forecast
    assert isinstance(forecast, Forecast)
    assert forecast.is_covered.mean() == forecast.validation.coverage
    assert not replace(forecast, measured=forecast.high * 1.01).is_covered.any()
    assert not replace(forecast, measured=forecast.low * 0.99).is_covered.any()
