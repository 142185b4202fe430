from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from bitwright.compress import Model
from bitwright.errors import TextError
from bitwright.objectives import Shape, Tokens, long_sequences, require_known, sample_texts, split_texts
from bitwright.objectives.text.documents import Chat
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny
from tests.sentences import sentence

DOCUMENTS = [line * 12 for line in tiny.TEXT]


@pytest.fixture(scope="module")
def with_start() -> PreTrainedTokenizerBase:
    """A tokenizer that puts a token before every text."""
    tokenizer = tiny.byte_level("gpt-2", {})
    start = ("<|begin|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", pair=None, special_tokens=[start])
    return tokenizer


@pytest.fixture(scope="module")
def without_start() -> PreTrainedTokenizerBase:
    return tiny.byte_level("gpt-2", {})


def rows(tokens: Tokens) -> set[tuple[int, ...]]:
    return {tuple(row) for row in tokens.ids.tolist()}


def stream(tokenizer: PreTrainedTokenizerBase, documents: list[str]) -> list[int]:
    ids = [tokenizer(document, add_special_tokens=False)["input_ids"] for document in documents]
    return [token for document in ids for token in [*document, tokenizer.eos_token_id]]


def test_batches_are_the_sequences_in_order() -> None:
    tokens = Tokens(np.arange(20).reshape(5, 4), "")
    assert [len(batch) for batch in tokens.batches(2)] == [2, 2, 1]
    assert np.concatenate(list(tokens.batches(2))).tolist() == tokens.ids.tolist()
    assert tokens.n_tokens == 20


# --- text of the user's


def test_each_sequence_is_consecutive_text_after_the_token_that_starts_one(with_start: PreTrainedTokenizerBase) -> None:
    texts = split_texts(DOCUMENTS, with_start, Shape(10**6, 10**6, 9), name="text")
    found = np.concatenate([texts.calibration.ids, texts.held_out.ids])
    assert (found[:, 0] == with_start.bos_token_id).all()
    expected = stream(with_start, DOCUMENTS)
    assert found[:, 1:].ravel().tolist() == expected[: len(expected) // 8 * 8]


@pytest.mark.parametrize("tokenizer", ["with_start", "without_start"])
def test_long_sequences_are_of_the_part_that_is_calibrated_on(tokenizer: str, request: pytest.FixtureRequest) -> None:
    reader: PreTrainedTokenizerBase = request.getfixturevalue(tokenizer)
    start, shape = tokenizer == "with_start", Shape(3, 1, 9)
    calibrated = split_texts(DOCUMENTS, reader, Shape(3 * 10**6, 10**6, 9), name="text").calibration.ids[:, start:].ravel()
    found = long_sequences(DOCUMENTS, reader, shape, length=41, n_tokens=130, name="text")
    assert found.ids.shape == (3, 41)
    body = 41 - start
    wholes = {tuple(calibrated[i : i + body]) for i in range(0, len(calibrated) - body + 1, body)}
    assert {tuple(row[start:]) for row in found.ids} <= wholes
    assert (found.ids[:, :start] == reader.bos_token_id).all()
    everything = long_sequences(DOCUMENTS, reader, shape, length=10**6, n_tokens=130, name="text")
    assert everything.ids[0, start:].tolist() == calibrated.tolist()


def test_no_token_is_put_before_where_the_tokenizer_adds_none(without_start: PreTrainedTokenizerBase) -> None:
    texts = split_texts(DOCUMENTS, without_start, Shape(10**6, 10**6, 9), name="text")
    found = np.concatenate([texts.calibration.ids, texts.held_out.ids])
    expected = stream(without_start, DOCUMENTS)
    assert found.ravel().tolist() == expected[: len(expected) // 9 * 9]


def test_the_parts_share_no_sequence_and_each_spans_its_part(without_start: PreTrainedTokenizerBase) -> None:
    everything = np.array(stream(without_start, DOCUMENTS))
    windows = everything[: len(everything) // 7 * 7].reshape(-1, 7).tolist()
    texts = split_texts(DOCUMENTS, without_start, Shape(6, 3, 7), name="text")
    assert (texts.calibration.ids.shape, texts.held_out.ids.shape) == ((6, 7), (3, 7))
    border = round(2 / 3 * len(windows))
    assert texts.calibration.ids[[0, -1]].tolist() == [windows[0], windows[border - 1]]
    assert texts.held_out.ids[[0, -1]].tolist() == [windows[border], windows[-1]]
    assert f"first {border} of {len(windows)} sequences" in texts.calibration.text
    assert f"last {len(windows) - border} of {len(windows)} sequences" in texts.held_out.text


@pytest.mark.parametrize(
    ("shape", "n_windows", "expected"),
    [((60, 30), 9, (6, 3)), ((10, 10), 4, (2, 2)), ((99, 1), 5, (4, 1)), ((1, 99), 5, (1, 4)), ((90, 9), 5, (3, 2))],
)
def test_a_short_text_is_divided_in_proportion(
    without_start: PreTrainedTokenizerBase, shape: tuple[int, int], n_windows: int, expected: tuple[int, int]
) -> None:
    length = 8
    document = without_start.decode(stream(without_start, DOCUMENTS)[: n_windows * length - 1])
    assert len(stream(without_start, [document])) == n_windows * length
    texts = split_texts([document], without_start, Shape(*shape, length), name="text")
    assert (len(texts.calibration.ids), len(texts.held_out.ids)) == expected
    assert not rows(texts.calibration) & rows(texts.held_out)


def test_a_held_out_text_may_be_held_out_whole(without_start: PreTrainedTokenizerBase) -> None:
    texts = split_texts(DOCUMENTS, without_start, Shape(64, 4, 8).all_held_out(), name="text")
    assert (len(texts.calibration.ids), len(texts.held_out.ids)) == (0, 4)
    assert texts.held_out.ids[0].tolist() == stream(without_start, DOCUMENTS)[:8]


CHAT = Chat(({"role": "user", "content": "Who ate?"}, {"role": "assistant", "content": "Bears."}), "line 1 of chat.jsonl")
TEMPLATE = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}[{{ m.role }}] {{ m.content }}{% endfor %}"


def test_messages_are_said_by_the_model_s_template(without_start: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_start, "chat_template", TEMPLATE + "{{ eos_token }}")
    texts = split_texts([CHAT] * 4, without_start, Shape(10**6, 10**6, 4), name="chat")
    found = np.concatenate([texts.calibration.ids, texts.held_out.ids]).ravel().tolist()
    one = [*without_start("[user] Who ate?[assistant] Bears.", add_special_tokens=False)["input_ids"], without_start.eos_token_id]
    assert found == (one * 4)[: len(one) * 4 // 4 * 4]
    monkeypatch.setattr(without_start, "chat_template", TEMPLATE)
    again = split_texts([CHAT] * 4, without_start, Shape(10**6, 10**6, 4), name="chat")
    assert np.concatenate([again.calibration.ids, again.held_out.ids]).ravel().tolist() == found


def test_messages_that_no_template_says_are_refused(without_start: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TextError) as refused:
        split_texts([CHAT], without_start, Shape(1, 1, 4), name="chat")
    sentence(refused.value, "line 1 of chat.jsonl", "no template", "--text-column")
    monkeypatch.setattr(without_start, "chat_template", TEMPLATE)
    with pytest.raises(TextError) as refused:
        split_texts([Chat(({"role": "tool", "content": "x"},), "line 2")], without_start, Shape(1, 1, 4), name="chat")
    sentence(refused.value, "line 2", "no tools")


def test_tokens_beyond_the_embedding_are_refused(tied: Model) -> None:
    n_rows = tied.module.get_input_embeddings().weight.shape[0]
    require_known(np.array([[0, n_rows - 1]]), tied, text="a.txt")
    with pytest.raises(TextError) as refused:
        require_known(np.array([[0, n_rows]]), tied, text="a.txt")
    sentence(refused.value, "a.txt", f"token {n_rows:,}", f"{n_rows:,} rows")
    foreign: Any = SimpleNamespace(bos_token_id=n_rows + 5, eos_token_id=None, convert_ids_to_tokens=lambda _: "<s>")
    with pytest.raises(TextError) as refused:
        sample_texts(replace(tied, tokenizer=foreign), Shape(1, 1, 4), seed=0, progress=Silent())
    sentence(refused.value, f"token {n_rows + 5:,} (<s>)")


def test_text_without_two_sequences_for_each_part_is_refused(without_start: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TextError) as refused:
        split_texts(["Once upon a time"], without_start, Shape(4, 4, 30), name="story.txt")
    sentence(refused.value, "story.txt", "at least 4 sequences of 30 tokens", "holds 0")
