"""Text as token sequences: calibration sequences to measure sensitivities on, and disjoint held-out sequences to evaluate plans on."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from transformers import PreTrainedTokenizerBase

from bitwright.compress import Model
from bitwright.errors import LibraryError, TextError
from bitwright.progress import Progress

_SAMPLED_AT_ONCE = 96
_DATASET_ROWS = 20_000


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


def sample_texts(model: Model, shape: Shape, *, seed: int, progress: Progress) -> Texts:
    """Sample text from the model itself at temperature 1: `shape.n_calibration + shape.n_held_out` independent sequences.

    Data-free calibration after LLM-QAT (Liu et al., 2023), without its greedy start. Every sequence begins with the beginning-of-text token.
    """
    n, drawn = shape.n_calibration + shape.n_held_out, []
    generator = torch.Generator().manual_seed(seed)
    with progress.stage("Sampling text from the model itself", n * shape.length) as advance:
        for start in range(0, n, _SAMPLED_AT_ONCE):
            drawn.append(_sample(model, min(_SAMPLED_AT_ONCE, n - start), shape.length, generator=generator))
            advance(drawn[-1].size)
    ids = np.concatenate(drawn)
    name = f"sampled from the model (seed {seed})"
    return Texts(Tokens(ids[: shape.n_calibration], name), Tokens(ids[shape.n_calibration :], name))


def split_texts(documents: list[str], tokenizer: PreTrainedTokenizerBase, shape: Shape, *, name: str) -> Texts:
    """Split `documents` into sequences: the first part for calibration, the rest held out, each sampled evenly over its part.

    A text with fewer sequences than requested is divided in the same proportion.

    Raises:
        TextError: fewer sequences than one for each part that `shape` requests.
    """
    windows = _windows(documents, tokenizer, shape.length)
    needed = bool(shape.n_calibration) + bool(shape.n_held_out)
    if len(windows) < needed:
        raise TextError(
            f"Text must hold at least {needed} sequences of {shape.length} tokens, so that one can be held out; {name} holds {len(windows)}: "
            "give more text, a smaller --sequence-length, or no --calibration to sample text from the model itself."
        )
    border = _border(windows, shape)
    parts = (windows[:border], shape.n_calibration, "first"), (windows[border:], shape.n_held_out, "last")
    first, last = (Tokens(_spread(part, n), f"{name} ({where} {len(part)} of {len(windows)} sequences)") for part, n, where in parts)
    return Texts(first, last)


def long_sequences(documents: list[str], tokenizer: PreTrainedTokenizerBase, shape: Shape, *, length: int, n_tokens: int, name: str) -> Tokens:
    """Cut the calibration part of `split_texts` into longer sequences of `length` tokens, or a single one of all its tokens where it has fewer.

    The sequences are sampled evenly over the part: at most `n_tokens` in total, but at least one sequence.
    """
    windows, start = _windows(documents, tokenizer, shape.length), len(start_tokens(tokenizer))
    part = windows[: _border(windows, shape)]
    stream = part[:, start:].reshape(-1)
    body = min(length - start, len(stream))
    rows = stream[: len(stream) // body * body].reshape(-1, body)
    sequences = np.concatenate([np.tile(part[0, :start], (len(rows), 1)), rows], axis=1)
    return Tokens(_spread(sequences, max(n_tokens // sequences.shape[1], 1)), name)


def read_documents(path: Path) -> list[str]:
    """Read the documents of a file: the field `text` of each line of a `.jsonl` file, else the whole file, split at `<|endoftext|>`.

    Raises:
        TextError: no such file, not UTF-8, a line that is not JSON or has no `text`, or only white space.
    """
    try:
        raw = path.read_text(encoding="utf-8")
        documents = (
            [str(json.loads(line)["text"]) for line in raw.splitlines() if line.strip()] if path.suffix == ".jsonl" else raw.split("<|endoftext|>")
        )
    except OSError as error:
        raise TextError(f"Text must be a readable file; {path} is not ({error.strerror}): check the path.") from error
    except UnicodeDecodeError as error:
        raise TextError(f"Text must be UTF-8; {path} is not (byte {error.start}): convert it, or give another file.") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise TextError(
            f"Every line of a .jsonl file must be an object with a field 'text'; {path} has one that is not: fix it, or rename the file to .txt."
        ) from error
    documents = [document.strip() for document in documents if document.strip()]
    if not documents:
        raise TextError(f"Text must not be empty; {path} is empty: give a file with text, or no --calibration.")
    return documents


def dataset_documents(name: str) -> list[str]:
    """Read documents of a dataset of the Hugging Face hub: `name[:configuration[:split[:column]]]`, by default the column `text` of its split
    `train`.

    Raises:
        LibraryError: the package `datasets` is not installed.
        TextError: the hub has no such dataset or column, or its documents are empty.
    """
    dataset, configuration, split, column = (*name.split(":"), "", "", "", "")[:4]
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise LibraryError(
            f"Text must be a file, or a hub dataset if the package `datasets` is installed; there is no file '{name}': "
            "check the path, or install datasets."
        ) from error
    try:
        rows = library.load_dataset(dataset, configuration or None, split=split or "train", streaming=True)
        documents = [text for row in islice(rows, _DATASET_ROWS) if (text := str(row[column or "text"]).strip())]
    except (OSError, ValueError, KeyError) as error:
        raise TextError(
            f"Text must be a file or a dataset of the hub; there is no file '{name}', and the hub gave no such dataset ({error}): "
            "check the name and the network."
        ) from error
    if not documents:
        raise TextError(f"Text must not be empty; the first {_DATASET_ROWS} rows of {name} are empty: name another column.")
    return documents


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token that the tokenizer puts before every text, or none."""
    plain, special = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    return list(special[:1]) if special[:1] != plain[:1] else []


def _windows(documents: list[str], tokenizer: PreTrainedTokenizerBase, length: int) -> NDArray[np.int64]:
    """Cut all documents into consecutive windows `(n, length)`, each preceded by the beginning-of-text token if the tokenizer adds one."""
    start = start_tokens(tokenizer)
    separator = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stream = [token for document in documents for token in [*tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"], *separator]]
    body = length - len(start)
    n = len(stream) // body
    windows = np.array(stream[: n * body], dtype=np.int64).reshape(n, body)
    return np.concatenate([np.tile(np.array(start, dtype=np.int64), (n, 1)), windows], axis=1)


def _border(windows: NDArray[np.int64], shape: Shape) -> int:
    """Return the number of a text's `windows` `(n, length)` that belong to the calibration part."""
    share = shape.n_calibration / (shape.n_calibration + shape.n_held_out)
    return int(np.clip(round(share * len(windows)), bool(shape.n_calibration), len(windows) - bool(shape.n_held_out)))


def _spread(windows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    chosen: NDArray[np.int64] = windows[np.linspace(0, len(windows) - 1, min(n, len(windows))).round().astype(int)]
    return chosen


def draw(probabilities: Torch, generator: torch.Generator) -> Torch:
    """Draw one index for each row of `probabilities` `(n, n_choices)`: `(n, 1)` int64, by inverting the cumulative distribution."""
    cumulative = probabilities.detach().cpu().cumsum(dim=-1)
    thresholds = torch.rand((len(cumulative), 1), generator=generator) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, thresholds).clamp(max=cumulative.shape[-1] - 1)


@torch.inference_mode()
def _sample(model: Model, n: int, length: int, *, generator: torch.Generator) -> NDArray[np.int64]:
    """Sample `n` sequences `(n, length)` token by token."""
    tokenizer = model.tokenizer
    first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0)
    ids = torch.full((n, 1), first, dtype=torch.int64, device=model.device)
    drawn, cache = [ids], None
    for _ in range(length - 1):
        out = model.module(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        probabilities = out.logits[:, -1].float().softmax(dim=-1)
        ids = draw(probabilities, generator).to(model.device)
        cache = out.past_key_values
        drawn.append(ids)
    sequences: NDArray[np.int64] = torch.cat(drawn, dim=1).cpu().numpy()
    return sequences
