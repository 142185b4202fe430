"""Text as token sequences: calibration sequences to measure sensitivities on, and disjoint held-out sequences to evaluate plans on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from bitwright.compress import Model
from bitwright.errors import TextError
from bitwright.objectives.text.documents import Chat, Document, require_sayable


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sequences of token ids `(n_sequences, length)` int64, and `text`, a description of their source."""

    ids: NDArray[np.int64]
    text: str

    @property
    def n_tokens(self) -> int:
        """Return the number of tokens over all sequences."""
        return self.ids.size

    def batches(self, n_sequences: int) -> Iterator[NDArray[np.int64]]:
        """Yield the sequences in order, at most `n_sequences` at a time."""
        for start in range(0, len(self.ids), n_sequences):
            yield self.ids[start : start + n_sequences]


@dataclass(frozen=True)
class Shape:
    """Number of sequences to take, `n_calibration` and `n_held_out`, of `length` tokens each."""

    n_calibration: int
    n_held_out: int
    length: int

    def all_held_out(self) -> "Shape":
        """Return the shape without calibration sequences, so that every sequence of a text may be held out."""
        return Shape(0, self.n_held_out, self.length)


@dataclass(frozen=True, eq=False)
class Texts:
    """Calibration tokens, and held-out tokens that share no sequence with them."""

    calibration: Tokens
    held_out: Tokens


def split_texts(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, shape: Shape, *, name: str, n_rows: float = inf) -> Texts:
    """Sequences of `documents`: the first part for calibration, the rest held out, each spread evenly over its part.

    A text with fewer sequences than asked for is divided in the same proportion, which is for the caller to tell.
    `n_rows` are those of the model's embedding, where there is a model.

    Raises:
        TextError: fewer sequences than two for each part that `shape` asks for, without which there is no standard error, or than it asks for;
            messages that the model has no template for, or tokens that it has no row for.
    """
    windows = _windows(documents, tokenizer, shape.length)
    _require_rows(windows, tokenizer, n_rows, text=name)
    needed = _fewest(shape.n_calibration) + _fewest(shape.n_held_out)
    if len(windows) < needed:
        raise TextError(
            f"Text must hold at least {needed} sequences of {shape.length} tokens, so that some can be held out; {name} holds {len(windows)}: "
            "give more text, a smaller --sequence-length, or no --calibration to let the model write its own."
        )
    border = _border(windows, shape)
    parts = (windows[:border], shape.n_calibration, "first"), (windows[border:], shape.n_held_out, "last")
    first, last = (Tokens(_spread(part, n), f"{name} ({where} {len(part)} of {len(windows)} sequences)") for part, n, where in parts)
    return Texts(first, last)


def long_sequences(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, shape: Shape, *, length: int, n_tokens: int, name: str
) -> Tokens:
    """Return longer sequences of the calibration part of `documents`: `length` tokens each, or one shorter sequence if the part is shorter, spread
    evenly, at most `n_tokens` in total but at least one sequence.
    """
    windows, start = _windows(documents, tokenizer, shape.length), len(start_tokens(tokenizer))
    part = windows[: _border(windows, shape)]
    stream = part[:, start:].reshape(-1)
    body = min(length - start, len(stream))
    rows = stream[: len(stream) // body * body].reshape(-1, body)
    sequences = np.concatenate([np.tile(part[0, :start], (len(rows), 1)), rows], axis=1)
    return Tokens(_spread(sequences, max(n_tokens // sequences.shape[1], 1)), name)


def require_known(ids: NDArray[np.int64], model: Model, *, text: str) -> None:
    """Require that the model's embedding has a row for every token id; `text` describes the source of the ids.

    Raises:
        TextError: a row is missing, for example if a token was added to a tokenizer but not to its model.
    """
    _require_rows(ids, model.tokenizer, embedding_rows(model), text=text)


def require_first_token(tokenizer: PreTrainedTokenizerBase, n_rows: int) -> int:
    """Return the id of the token that text sampled from a model begins with; `n_rows` are those of its embedding.

    Raises:
        TextError: the embedding has no row for it.
    """
    first: int = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0)
    _require_rows(np.array([first]), tokenizer, n_rows, text="text of the model's own, by the token that begins it,")
    return first


def embedding_rows(model: Model) -> int:
    """Return the number of rows of a model's embedding, the upper bound of its token ids."""
    return model.module.get_input_embeddings().get_parameter("weight").shape[0]


def _require_rows(ids: NDArray[np.int64], tokenizer: PreTrainedTokenizerBase, n_rows: float, *, text: str) -> None:
    beyond = ids[(ids < 0) | (ids >= n_rows)]
    if len(beyond):
        token = int(beyond.flat[0])
        word = tokenizer.convert_ids_to_tokens(token) or "no word"
        raise TextError(
            f"Every token of a text must have a row in the model's embedding; {text} has token {token:,} ({word}) and the embedding {n_rows:,} rows: "
            "leave that word out, or give the model its own tokenizer."
        )


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token that the tokenizer puts before every text, or none."""
    plain, special = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    return list(special[:1]) if special[:1] != plain[:1] else []


def _windows(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, length: int) -> NDArray[np.int64]:
    """Return consecutive windows `(n, length)` over all documents, each starting with the token that the tokenizer adds to a text, if any."""
    start = start_tokens(tokenizer)
    separator = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stream = [token for document in documents for token in _ended(_encoded(document, tokenizer), separator, document)]
    body = length - len(start)
    n = len(stream) // body
    windows = np.array(stream[: n * body], dtype=np.int64).reshape(n, body)
    return np.concatenate([np.tile(np.array(start, dtype=np.int64), (n, 1)), windows], axis=1)


def _border(windows: NDArray[np.int64], shape: Shape) -> int:
    """Return the number of a text's `windows` `(n, length)` that belong to the calibration part."""
    share = shape.n_calibration / (shape.n_calibration + shape.n_held_out)
    return int(np.clip(round(share * len(windows)), _fewest(shape.n_calibration), len(windows) - _fewest(shape.n_held_out)))


def _fewest(n_sequences: int) -> int:
    """Return the minimum number of sequences of a part of `n_sequences`."""
    return min(n_sequences, 2)


def _encoded(document: Document, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    words = _said(document, tokenizer) if isinstance(document, Chat) else document
    ids: list[int] = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _said(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> str:
    """Format a chat with the model's chat template.

    Raises:
        TextError: the model has none, or it fails on these messages.
    """
    if not tokenizer.chat_template:
        raise TextError(
            f"Messages are put into words by the model's chat template; {chat.place} has messages and this model has no template: give texts, or "
            "name a column of texts with --text-column."
        )
    try:
        said = tokenizer.apply_chat_template([dict(message) for message in chat.messages], tokenize=False)
    except Exception as error:  # a template is third-party code and may raise anything
        told = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise TextError(f"Messages must be such as the model's chat template takes; those of {chat.place} are not ({told}): drop them.") from error
    return require_sayable(str(said), chat.place)


def _ended(ids: list[int], separator: list[int], document: Document) -> list[int]:
    """Append the end-of-text token to a document's ids, unless a template already did."""
    return ids if isinstance(document, Chat) and ids[-1:] == separator else [*ids, *separator]


def _spread(windows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    chosen: NDArray[np.int64] = windows[np.linspace(0, len(windows) - 1, min(n, len(windows))).round().astype(int)]
    return chosen
