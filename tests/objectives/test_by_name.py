import json
from pathlib import Path

import pytest

from bitwright.errors import LibraryError, ObjectiveError, TextError, UserError
from bitwright.objectives import ClampedJensenShannon, CostObjective, KullbackLeibler, parse_objectives
from bitwright.objectives.metrics.effective_rank import EffectiveRank
from bitwright.objectives.metrics.flips import Flips
from bitwright.objectives.metrics.jensen_shannon import JensenShannon
from bitwright.objectives.metrics.kullback_leibler import TopKullbackLeibler
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.metrics.rank_correlation import Kendall, Spearman
from bitwright.objectives.metrics.task_error import TaskError, TaskErrorByLength
from bitwright.objectives.metrics.tasks import read_task
from bitwright.objectives.metrics.user_function import UserFunction
from bitwright.objectives.metrics.worst_slice import WorstSlice
from tests.sentences import sentence


def test_names_are_parsed_in_their_order() -> None:
    assert parse_objectives("kl,flips,worst5%") == (KullbackLeibler(), Flips(), WorstSlice(5))
    assert parse_objectives(" bits, erank,perplexity,") == (CostObjective.BITS, EffectiveRank(), Perplexity())
    assert parse_objectives("jsd,amq-jsd,bytes") == (JensenShannon(), ClampedJensenShannon(), CostObjective.BYTES)
    assert parse_objectives("kl,active-bytes,seconds-per-token,joules-per-token")[1:] == (
        CostObjective.ACTIVE_BYTES,
        CostObjective.SECONDS,
        CostObjective.JOULES,
    )


def test_numbers_may_be_others() -> None:
    found = parse_objectives("top20-kl,top3-kendall,top7-spearman,worst2.5%")
    assert found == (TopKullbackLeibler(20), Kendall(3), Spearman(7), WorstSlice(2.5))


@pytest.mark.parametrize("word", ["kl", "jsd", "amq-jsd", "top10-kl", "perplexity", "flips", "worst5%", "top10-kendall", "top10-spearman", "erank"])
def test_an_objective_is_asked_for_by_its_name(word: str) -> None:
    (found,) = parse_objectives(word)
    assert not isinstance(found, CostObjective)
    assert found.name == word


def test_tasks_and_functions_lie_in_files(tmp_path: Path) -> None:
    task, mine = tmp_path / "quiz.jsonl", tmp_path / "mine.py"
    task.write_text(json.dumps({"context": "Once upon a", "continuation": "time"}), encoding="utf-8")
    mine.write_text("def size(model):\n    return 1.0, 0.0\n", encoding="utf-8")
    whole, by_length, function = parse_objectives(f"error:{task},length-error:{task},{mine}:size")
    assert (whole, by_length) == (TaskError(read_task(task)), TaskErrorByLength(read_task(task)))
    assert isinstance(function, UserFunction)
    assert [whole.name, by_length.name, function.name] == [f"error:{task}", f"length-error:{task}", f"{mine}:size"]
    with pytest.raises(TextError):
        parse_objectives(f"error:{task}.gone")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("klx", "did you mean kl?"),
        ("kl,flip", "did you mean flips?"),
        ("worst%", "did you mean worst5%?"),
        ("zzz", "choose from kl, jsd, "),
        ("zzz", "error:FILE"),
        ("", "choose from kl"),
        (" , ", "names none"),
        ("kl,flips,kl", "'kl' is named 2 times"),
        ("top0-kl", "one token"),
        ("top1-kendall", "two tokens"),
        ("worst0%", "per cent"),
        ("worst101%", "per cent"),
    ],
)
def test_an_unknown_or_impossible_name_is_refused(text: str, told: str) -> None:
    with pytest.raises(ObjectiveError) as refused:
        parse_objectives(text)
    sentence(refused.value, told)


def test_a_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.objectives.metrics.harness.find_spec", lambda name: None)
    for word in ("lm-eval:arc_easy", "lm-eval:arc_easy:acc_norm"):
        with pytest.raises(LibraryError) as refused:
            parse_objectives(word)
        sentence(refused.value, word, "pip install")
    assert issubclass(LibraryError, UserError)
