from dataclasses import replace

import numpy as np

from bitwright.report import SearchHistory, SizeLimit
from bitwright.report.course_section import course_sections

HOSTILE = "\"><script>alert(1)</script>'&"


def words(course: SearchHistory) -> str:
    return course_sections([course]).replace("\N{NO-BREAK SPACE}", " ")


def test_a_search_within_a_budget_is_told(within: SearchHistory) -> None:
    text = words(within)
    assert "<h3>auto, within 90.00 MB</h3>" in text
    assert "60 evaluations; 3,080,192 tokens and 10 min 47 s in all." in text
    assert "went from 0.0584 to 0.0355 nats/token." in text
    assert "stopped by itself" in text
    assert "Source: docs/search.md." in text
    assert "Spearman 0.987, Kendall 0.914, root mean square error 0.0312 nats/token; 88.3 % lie in their 90 % intervals." in text
    assert text.count("<svg class=") == 2


def test_a_search_along_the_front_is_told(along: SearchHistory) -> None:
    text = words(along)
    assert "<h3>nsga2, along the front</h3>" in text
    assert "The hypervolume went from 61.9 % to 99.8 % of the best known front" in text
    assert "stopped at its evaluation limit" in text
    assert text.count("<svg class=") == 1


def test_a_search_that_came_to_little_is_told(within: SearchHistory) -> None:
    nothing = replace(within, steps=(), hypervolume=np.zeros(0), incumbent=np.zeros(0), forecast=None, source="")
    assert "<p>Nothing was measured. The search stopped by itself" in words(nothing)
    assert "Source" not in words(nothing)
    assert "<figure>" not in words(nothing)
    one = replace(within, steps=within.steps[:1], hypervolume=np.ones(1), incumbent=within.incumbent[:1])
    assert "1 evaluation;" in words(one)
    assert "The first file that fits, at 0.0584 nats/token, stayed the best." in words(one)
    assert "No measured file is small enough." in words(replace(within, goal=SizeLimit(1), incumbent=np.full(60, np.inf)))


def test_all_are_told_after_one_word_about_their_text(within: SearchHistory, along: SearchHistory) -> None:
    text = course_sections([along, within])
    assert text.count("search text, not on the held-out text") == 1
    assert text.index("<p>Divergences here") < text.index("<h3>nsga2") < text.index("<h3>auto")
    assert course_sections([]) == ""


def test_hostile_names_are_only_text(within: SearchHistory) -> None:
    assert "<script>" not in course_sections([replace(within, method=HOSTILE, source=HOSTILE)])
    known = replace(within.forecast, validation=replace(within.forecast.validation, predictor=HOSTILE))
    assert "<script>" not in course_sections([replace(within, forecast=known)])
