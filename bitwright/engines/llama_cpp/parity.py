"""Parity of llama.cpp and torch with the model's own weights.

The original is given to llama.cpp as a GGUF file of its own, with every tensor as it is stored, and next tokens after contexts of four lengths are
compared, each text at all of them, so that it is computed once. Most of some length differing by more than `HEALTHY_NATS`, which no rounding
explains, is a fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import GgufSource, Model, window_ignored
from bitwright.engines.check_result import HEALTHY_NATS, divergences, mean_divergence, steady_context
from bitwright.engines.container import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.log import why_unusable
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.parity import Parity
from bitwright.errors import ModelError
from bitwright.objectives import next_token_log_probabilities
from bitwright.progress import Advance

_LENGTHS, _OF_A_LENGTH = 4, 4
_ROOM = 8  # tokens that a context of the engine has to spare
_SAMPLE = "The quick brown fox, 42 years old, said: \"Hello, world!\"\n\tIt's naïve — isn't it?"
_SAME_CONTEXT = 0.01  # nats between two runs of one engine on the same tokens; another token anywhere moves far more


def require_window(model: Model, n_tokens: int) -> None:
    """Refuse texts of `n_tokens` where the model has a shorter window that llama.cpp does not compute.

    Raises:
        ModelError: it has.
    """
    window = window_ignored(model.module.config)
    if 0 < window < n_tokens:
        raise ModelError(
            f"llama.cpp computes a {model.module.config.model_type} without a sliding window, so texts must be no longer than it; "
            f"{model.source.name} has one of {window} tokens and texts have {n_tokens:,}: give --sequence-length {window} or less, or choose "
            "another --target."
        )


def parity_contexts(sequences: NDArray[np.int64], longest: int) -> list[NDArray[np.int64]]:
    """Return the first four of `sequences` `(n_sequences, length)` at four lengths, from a quarter to all that a context of `longest` tokens has room
    for.
    """
    length = min(sequences.shape[1], max(longest - _ROOM, 2))
    lengths = [max(2, length * (i + 1) // _LENGTHS) for i in range(_LENGTHS) for _ in range(_OF_A_LENGTH)]
    return [sequences[i % min(_OF_A_LENGTH, len(sequences))][:n] for i, n in enumerate(lengths)]


@contextmanager
def original_file(model: Model, folder: Path) -> Iterator[Path]:
    """Provide the original as a GGUF file: its own, or a copy in `folder` for as long as the block lasts.

    Raises:
        OutputError: the folder cannot be written.
    """
    if isinstance(model.source, GgufSource):
        yield model.source.path
        return
    path = folder / "original.gguf"
    try:
        write_gguf(path, Recipe(model.source, {}), model.source.stored)
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def tokenizes_alike(model: Model, engine: LlamaCpp) -> bool:
    """Return whether the engine tokenizes a text as the model's tokenizer does: the next token is the same for the text and for its ids."""
    ids = model.tokenizer(_SAMPLE)["input_ids"]
    return mean_divergence(engine.next_token(ids)[None], engine.next_token(_SAMPLE)[None]).nats_per_token < _SAME_CONTEXT


def compare_original(model: Model, contexts: list[NDArray[np.int64]], folder: Path, advance: Advance) -> dict[str, float]:
    """Compare llama.cpp with torch on the original after `contexts`, each `(length,)` token ids; a copy of the model may be written to `folder`.

    Returns the mean divergence in nats per token, its standard error and the length of the longest context.

    Raises:
        ModelError: llama.cpp refuses the model, computes something else, or cuts text otherwise than the model's tokenizer.
        OutputError: there is no room for a copy of the model.
    """
    lengths = [len(context) for context in contexts]
    in_torch = next_token_log_probabilities(model, contexts)
    with original_file(model, folder) as path:
        engine = _loaded(model, path, n_vocabulary=in_torch.shape[1], context=max(lengths) + _ROOM)
        in_engine = engine.next_tokens(contexts, in_torch, advance)
        nats = divergences(in_torch, in_engine)
        steady = steady_context(nats, lengths)
        if nats[steady] > HEALTHY_NATS:
            raise _unlike(model, engine, contexts[steady], nats[steady])
        if not tokenizes_alike(model, engine):
            raise ModelError(
                f"llama.cpp must cut text as the model's tokenizer does, to be searched for; for {model.source.name} it does not: choose another "
                "--target."
            )
    mean = mean_divergence(in_torch, in_engine)
    return {"nats_per_token": mean.nats_per_token, "standard_error": mean.standard_error, "length": max(lengths)}


def _loaded(model: Model, path: Path, *, n_vocabulary: int, context: int) -> LlamaCpp:
    """Load the original, first in a process of its own, which llama.cpp ends for some files."""
    why = why_unusable(path, context)
    if why:
        raise ModelError(
            f"llama.cpp must be able to load the model, to be searched for; it refuses {model.source.name} as it is stored ({why}): choose another "
            "--target."
        )
    return LlamaCpp(path, n_vocabulary=n_vocabulary, n_threads=torch.get_num_threads(), context=context)


def _unlike(model: Model, engine: LlamaCpp, context: NDArray[np.int64], nats: float) -> ModelError:
    """Return the error that says how far apart both are after `context`, and from which of its tokens on."""
    alike, unlike = 0, len(context)
    while unlike - alike > 1:
        middle = (alike + unlike) // 2
        in_torch = next_token_log_probabilities(model, [context[:middle]])
        in_engine = engine.next_token(context[:middle].tolist(), in_torch[0])[None]
        far = divergences(in_torch, in_engine)[0] > HEALTHY_NATS
        alike, unlike = (alike, middle) if far else (middle, unlike)
    return ModelError(
        f"llama.cpp must compute what the model computes, to be searched for; with the weights of {model.source.name} as they are stored it is "
        f"{nats:.2g} nats/token from torch after {len(context):,} tokens, where {HEALTHY_NATS} are allowed, and differs from about token {unlike:,} "
        "on: choose another --target."
    )


class LlamaCppParity(Parity):
    """Parity of llama.cpp and torch on the original model."""

    def contexts(self, sequences: NDArray[np.int64], longest: int) -> list[NDArray[np.int64]]:
        """Choose contexts of rising length from `sequences`, none longer than `longest` tokens."""
        return parity_contexts(sequences, longest)

    def compare(self, model: Model, contexts: list[NDArray[np.int64]], folder: Path, advance: Advance) -> dict[str, float]:
        """Compare both on each context."""
        return compare_original(model, contexts, folder, advance)
