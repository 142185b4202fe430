from dataclasses import replace
from math import inf, nan, sqrt

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from bitwright.compress import Model, applied
from bitwright.errors import ModelError, ObjectiveError
from bitwright.objectives import ModelObjective
from bitwright.objectives.metrics.task_error import TaskError, TaskErrorByLength, likelihoods
from bitwright.objectives.metrics.tasks import Item, Task
from bitwright.testing.objective_contract import ModelContract
from tests.compress import tiny_models as tiny
from tests.sentences import sentence

pytestmark = pytest.mark.slow

WORDS = ["bears", "a very long porridge", "12 bowls", "add(x, y)", "the café's menu", "日本語"]
PAIRS = [(f"Once upon {a}, there was {b[:4]}", f" {c}") for a in WORDS for b in WORDS for c in WORDS[:3]]
ANSWERS = (" a", " x", " menu", " porridge")
QUIZ = Task("quiz", tuple(Item(tuple((context, answer) for answer in ANSWERS), 0) for context, _ in PAIRS[::6]))


class TestTaskError(ModelContract):
    def objective(self, model: Model) -> ModelObjective:
        return TaskError(answered(QUIZ, model))


class TestTaskErrorByLength(ModelContract):
    def objective(self, model: Model) -> ModelObjective:
        return TaskErrorByLength(answered(QUIZ, model))


def scored(model: Model, item: Item) -> np.ndarray:
    return np.array([likelihood.nats for likelihood in likelihoods(model, item.options)])


def answered(task: Task, model: Model) -> Task:
    """The items with the model's own answers as the gold ones."""
    return Task(task.name, tuple(replace(item, gold=int(scored(model, item).argmax())) for item in task.items))


@pytest.fixture
def without_start(tied: Model) -> Model:
    return replace(tied, tokenizer=tiny.byte_level("gpt-2", {}))


@pytest.fixture
def with_start(tied: Model) -> Model:
    """A tokenizer that puts one token before every text and one behind it."""
    tokenizer = tiny.byte_level("gpt-2", {})
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|end|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A <|end|>", pair=None, special_tokens=special)
    return replace(tied, tokenizer=tokenizer)


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def alone(model: Model, before: list[int], labels: list[int]) -> tuple[float, bool]:
    """Log-likelihood of `labels` after `before`, one text at a time, and whether they would be chosen."""
    with torch.inference_mode():
        found = model.module(torch.tensor([before + labels])).logits[0].double().log_softmax(dim=-1)[len(before) - 1 : -1]
    return float(found[torch.arange(len(labels)), torch.tensor(labels)].sum()), found.argmax(dim=-1).tolist() == labels


@pytest.mark.parametrize(("name", "start"), [("tied", []), ("without_start", []), ("with_start", ["<|begin|>"])])
def test_likelihoods_are_those_of_each_text_alone(name: str, start: list[str], request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    before = model.tokenizer.convert_tokens_to_ids(start)
    found = likelihoods(model, PAIRS)
    for (context, continuation), likelihood in zip(PAIRS, found, strict=True):
        whole, n = ids(model.tokenizer, context + continuation), len(ids(model.tokenizer, context))
        assert whole[:n] == ids(model.tokenizer, context)
        nats, is_greedy = alone(model, before + whole[:n], whole[n:])
        assert likelihood.nats == pytest.approx(nats, abs=1e-3)
        assert likelihood.is_greedy == is_greedy


def test_a_token_that_spans_the_border_belongs_to_the_continuation(without_start: Model) -> None:
    tokenizer = without_start.tokenizer
    whole, context = ids(tokenizer, "Once upon"), ids(tokenizer, "Once up")
    assert whole[:2] == context[:2]
    assert tokenizer.decode(whole[2]) == " upo"
    (found,) = likelihoods(without_start, [("Once up", "on")])
    assert found.nats == pytest.approx(alone(without_start, whole[:2], whole[2:])[0], abs=1e-4)


def test_a_continuation_is_a_token_at_least(without_start: Model) -> None:
    whole = ids(without_start.tokenizer, "Once upon")
    (found,) = likelihoods(without_start, [("Once upon", "")])
    assert found.nats == pytest.approx(alone(without_start, whole[:-1], whole[-1:])[0], abs=1e-4)


def test_something_stands_before_every_continuation(without_start: Model, with_start: Model) -> None:
    labels = ids(without_start.tokenizer, " bears")
    for model, before in ((without_start, "<|end|>"), (with_start, "<|begin|>")):
        (found,) = likelihoods(model, [("", " bears")])
        expected, _ = alone(model, [model.tokenizer.convert_tokens_to_ids(before)], labels)
        assert found.nats == pytest.approx(expected, abs=1e-4)


def test_of_a_text_that_is_too_long_the_end_is_read(without_start: Model) -> None:
    context = "three bears; they'd eaten " * 40
    whole = ids(without_start.tokenizer, context + " porridge")
    n = len(whole) - len(ids(without_start.tokenizer, context))
    assert len(whole) > 128 > n
    (found,) = likelihoods(without_start, [(context, " porridge")])
    assert found.nats == pytest.approx(alone(without_start, whole[-128:-n], whole[-n:])[0], abs=1e-3)


def test_a_continuation_that_is_too_long_is_refused(without_start: Model) -> None:
    longest = "1" * 127
    assert len(ids(without_start.tokenizer, longest)) == 127
    (found,) = likelihoods(without_start, [("Once", longest)])
    assert found.nats < 0
    with pytest.raises(ObjectiveError) as refused:
        likelihoods(without_start, [("Once", longest + "1")])
    sentence(refused.value, 128, "1111")


@pytest.mark.parametrize("value", [nan, inf])
def test_a_model_with_logits_that_are_not_finite_is_refused(tied: Model, value: float) -> None:
    with (
        applied(tied, {"token_embd.weight": lambda: np.full((384, 64), value, dtype=np.float32)}),
        pytest.raises(ModelError) as refused,
    ):
        TaskError(QUIZ).evaluate_model(tied)
    sentence(refused.value, "finite")


# --- what counts as wrong


def test_the_likeliest_option_is_the_answer(tied: Model) -> None:
    right = answered(QUIZ, tied).items
    wrong = tuple(replace(item, gold=(item.gold + 1) % 4) for item in right)
    assert TaskError(Task("right", right)).evaluate_model(tied).value == 0
    assert TaskError(Task("wrong", wrong)).evaluate_model(tied).value == 1
    found = TaskError(Task("both", right[:12] + wrong[:6])).evaluate_model(tied)
    assert found.value == pytest.approx(1 / 3)
    assert found.standard_error == pytest.approx(sqrt(1 / 3 * 2 / 3 / 17))


def test_by_length_the_likeliest_per_character_is(tied: Model) -> None:
    scores = [scored(tied, item) / [len(continuation) - 1 for _, continuation in item.options] for item in QUIZ.items]
    best = [int(score.argmax()) for score in scores]
    assert best != [int(scored(tied, item).argmax()) for item in QUIZ.items]
    right = tuple(replace(item, gold=b) for item, b in zip(QUIZ.items, best, strict=True))
    assert TaskErrorByLength(Task("right", right)).evaluate_model(tied).value == 0


@pytest.mark.parametrize("kind", [TaskError, TaskErrorByLength])
def test_a_cloze_is_right_where_greedy_decoding_would_write_it(kind: type[TaskError], without_start: Model) -> None:
    tokenizer, items, expected = without_start.tokenizer, [], []
    for context, _ in PAIRS:
        before = ids(tokenizer, context)
        with torch.inference_mode():
            ranked = without_start.module(torch.tensor([before])).logits[0, -1].argsort(descending=True).tolist()
        for rank in (0, 1):
            text = tokenizer.decode([ranked[rank]])
            if ids(tokenizer, context + text) == [*before, ranked[rank]]:
                items.append(Item(((context, text),), 0))
                expected.append(rank)
    assert len({*expected}) == 2
    assert kind(Task("cloze", tuple(items))).evaluate_model(without_start).value == pytest.approx(np.mean(expected))


def test_names_are_of_their_tasks() -> None:
    assert (TaskError(QUIZ).name, TaskErrorByLength(QUIZ).name) == ("error:quiz", "length-error:quiz")
