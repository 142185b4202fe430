import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.report.charts.axes import Linear, Logarithmic, Scale, Window

ratios = st.floats(1.001, 1e6)
lows = st.floats(1e-8, 1e6)


@given(lows, ratios, st.sampled_from([Linear, Logarithmic]))
def test_ticks_rise_within_the_ends_and_are_few_but_enough(low: float, ratio: float, kind: type[Scale]) -> None:
    scale = kind(low, low * ratio)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))
    assert min(ticks) >= low * (1 - 1e-9)
    assert max(ticks) <= scale.high * (1 + 1e-9)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Linear(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Linear(-3.2, 12), [-2, 0, 2, 4, 6, 8, 10, 12]),
        (Logarithmic(0.04, 3), [0.05, 0.1, 0.2, 0.5, 1, 2]),
        (Logarithmic(0.04, 300), [0.1, 1, 10, 100]),
        (Logarithmic(0.41, 0.49), [0.42, 0.44, 0.46, 0.48]),  # no round number of the usual kind lies there
    ],
)
def test_ticks_are_round(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks() == pytest.approx(ticks)


@pytest.mark.parametrize(("value", "share"), [(1, 0), (10, 0.5), (100, 1), (0, 0), (-5, 0), (1e9, 1)])
def test_what_is_beyond_an_end_lies_on_it(value: float, share: float) -> None:
    assert Logarithmic(1, 100).share(value) == pytest.approx(share)


def test_up_is_up() -> None:
    window = Window(Linear(0, 10), Linear(0, 1), 300)
    assert (window.x(5), window.y(0), window.y(1)) == (50, 300, 0)


def test_numbers_stand_beside_their_lines() -> None:
    grid = Window(Linear(0, 3), Logarithmic(1e-5, 1e-1), 300).grid(across="size", up="loss")
    assert re.findall(r">([^<]+)</text>", grid) == [
        "1e-5",
        "0.0001",
        "0.001",
        "0.01",
        "0.1",
        *["0", "0.5", "1", "1.5", "2", "2.5", "3"],
        "size",
        "loss",
    ]
    assert '<text class="tick" x="-8" y="154.0" text-anchor="end">0.001</text>' in grid


def test_a_hostile_title_is_only_text() -> None:
    assert "<b>" not in Window(Linear(0, 1), Linear(0, 1), 10).drawing("", title='"><b>')


def test_any_number_of_dots_is_one_element() -> None:
    dots = Window(Linear(0, 1), Linear(0, 1), 10).dots([(1.0, 2.0), (3.0, 4.0)], look="tried")
    assert dots.count("<path") == 1
    assert 'd="M1.00 2.0h0M3.00 4.0h0"' in dots
