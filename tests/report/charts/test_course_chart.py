import re
from dataclasses import replace

import numpy as np
import pytest

from bitwright.report import SearchHistory, SearchStep, SizeLimit
from bitwright.report.charts.course_chart import course_chart

PLACES = re.compile(r'<g data-tip="([^"]*)" tabindex="0"><circle class="plan" cx="([\d.]+)%" cy="([\d.]+)"')


def line(chart: str) -> np.ndarray:
    """The corners of the staircase `(n, 2)`."""
    points = re.search(r'<polyline class="course"[^>]* points="([^"]+)"', chart)
    assert points
    return np.array([[float(number) for number in point.split(",")] for point in points[1].split()])


def dots(chart: str, look: str) -> int:
    return sum(path.count("h0") for path in re.findall(rf'<path class="{look}" vector-effect[^>]* d="([^"]+)"', chart))


def course_of(within: SearchHistory, incumbent: list[float]) -> SearchHistory:
    """Return a search history with an evaluation of 100 tokens for each number; `inf` is a file that is too large."""
    sizes = [80_000_000 if np.isfinite(best) else 100_000_000 for best in incumbent]
    steps = tuple(SearchStep(size, 0.5, 0.01, 8, 100 * (i + 1), i + 1.0) for i, size in enumerate(sizes))
    return replace(within, steps=steps, hypervolume=np.linspace(0.5, 1, len(incumbent)), incumbent=np.array(incumbent))


def test_the_line_holds_until_the_next_better_one(within: SearchHistory) -> None:
    corners = line(course_chart(course_of(within, [np.inf, 0.5, 0.5, 0.4])))
    assert corners[:, 0].tolist() == [50, 50, 100, 100, 100]
    assert (np.diff(corners[:, 1]) >= 0).all()  # pixels grow downwards
    assert len(set(corners[:, 1])) == 2


def test_each_mark_is_a_better_file_and_tells_of_it(within: SearchHistory) -> None:
    marks = PLACES.findall(course_chart(within))
    better = np.flatnonzero(np.diff(within.incumbent, prepend=np.inf) < 0)
    assert len(marks) == len(better)
    last = within.steps[better[-1]]
    assert marks[-1][0].startswith(f"evaluation {better[-1] + 1} of 60\n")
    assert f"on 64 sequences\nbest so far {within.incumbent[-1]:.4f} nats/token\n{last.tokens:,} tokens · " in marks[-1][0]


def test_other_files_that_fit_are_dots_and_those_given_up_early_small_ones(within: SearchHistory) -> None:
    chart = course_chart(within)
    fitting = [step for step in within.steps if step.size_bytes <= 90_000_000]
    assert len(fitting) == 59
    assert dots(chart, "tried") == sum(step.n_sequences == 64 for step in fitting)
    assert dots(chart, "tried part") == sum(step.n_sequences == 8 for step in fitting) > 0
    assert "other, in part" in chart
    whole = replace(within, steps=tuple(replace(step, n_sequences=64) for step in within.steps))
    assert "other, in part" not in course_chart(whole)


def test_an_evaluation_far_off_does_not_flatten_the_line(within: SearchHistory) -> None:
    far = replace(within, steps=(*within.steps[:20], replace(within.steps[20], nats_per_token=50.0), *within.steps[21:]))
    assert np.ptp(line(course_chart(far))[:, 1]) > 200


def test_the_best_of_the_beginning_lies_within(within: SearchHistory) -> None:
    assert line(course_chart(course_of(within, [5.0, *[0.4] * 30])))[0, 1] > 10


def test_a_search_that_lost_nothing_and_one_that_found_the_front_at_once_are_drawn(within: SearchHistory, along: SearchHistory) -> None:
    lossless = course_of(within, [0.0, 0.0])
    assert len(PLACES.findall(course_chart(replace(lossless, steps=tuple(replace(step, nats_per_token=0.0) for step in lossless.steps))))) == 1
    assert line(course_chart(replace(along, hypervolume=np.ones(45)))).tolist()[-1] == [100, 0]


def test_along_the_front_the_area_rises_to_the_upper_edge(along: SearchHistory) -> None:
    chart = course_chart(replace(along, hypervolume=along.hypervolume / along.hypervolume[-1]))
    corners = line(chart)
    assert corners[-1].tolist() == [100, 0]
    assert (np.diff(corners[:, 1]) <= 0).all()
    assert ">100.0 %</text>" in chart
    assert "hypervolume so far 61.9 %" in course_chart(along)
    assert not dots(chart, "tried")


@pytest.mark.parametrize(("factor", "name"), [(1, "tokens read"), (10, "tokens read, thousands"), (10_000, "millions"), (10_000_000, "billions")])
def test_tokens_are_counted_in_a_unit_that_suits_them(within: SearchHistory, factor: int, name: str) -> None:
    course = course_of(within, [0.5, 0.4])
    course = replace(course, steps=tuple(replace(step, tokens=step.tokens * factor) for step in course.steps))
    assert f"{name}</text>" in course_chart(course)


def test_a_long_search_has_few_marks_from_its_first_to_its_last(within: SearchHistory) -> None:
    marks = PLACES.findall(course_chart(course_of(within, list(np.linspace(0.5, 0.4, 5_000)))))
    assert len(marks) == 60
    assert (marks[0][0][:15], marks[-1][0][:16]) == ("evaluation 1 of", "evaluation 5,000")


def test_one_evaluation_and_one_that_reads_nothing_are_drawn(within: SearchHistory) -> None:
    course = course_of(within, [0.5])
    assert len(PLACES.findall(course_chart(course))) == 1
    free = replace(course, steps=(replace(course.steps[0], tokens=0),))
    assert "nan" not in course_chart(free)


def test_nothing_is_drawn_of_nothing(within: SearchHistory) -> None:
    assert course_chart(replace(within, goal=SizeLimit(1), incumbent=np.full(60, np.inf))) == ""
    assert course_chart(replace(within, steps=(), hypervolume=np.zeros(0), incumbent=np.zeros(0))) == ""
