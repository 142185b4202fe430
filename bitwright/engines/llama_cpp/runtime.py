"""GGUF files in llama.cpp itself: next-token distributions over the whole vocabulary, generation, and speed.

xllamacpp runs llama.cpp inside this process. Its server object also listens on a loopback port; only calls within the process are used here.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp
from numpy.typing import NDArray

from bitwright.engines.greedy_generation import Generated
from bitwright.engines.llama_cpp.log import why_refused
from bitwright.errors import ModelError, shown
from bitwright.progress import Advance, ignore
from bitwright.spaces import DEFAULT_CACHE, CacheTypes

_QUIET = -1
#: most likely tokens that the server is asked for: words and bytes of each in JSON take longer than computing a short context
REPORTED = 4096
_TYPES = {name.removeprefix("GGML_TYPE_"): kind for name, kind in xllamacpp.ggml_type.__members__.items()}
_PROMPT_TOKENS = 256


class LlamaCpp:
    """Loaded model with room for `context` tokens, keys and values in the types of `cache`.

    Raises:
        ModelError: llama.cpp refuses the file; its log says why.
    """

    def __init__(self, path: Path, *, n_vocabulary: int, n_threads: int, cache: CacheTypes = DEFAULT_CACHE, context: int = _PROMPT_TOKENS) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx = context
        settings.cache_type_k, settings.cache_type_v = _TYPES[cache.keys], _TYPES[cache.values]
        settings.n_parallel = 1
        settings.cpuparams.n_threads = n_threads
        settings.warmup = False
        settings.verbosity = _QUIET
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise ModelError(f"llama.cpp must be able to load the file; it refuses {path} ({why_refused(path)}): build it again.") from error
        self._path, self._n_vocabulary = path, n_vocabulary
        self._clock = time.process_time if n_threads == 1 else time.perf_counter

    def next_tokens(self, contexts: Sequence[NDArray[np.int64]], like: NDArray[np.float64], advance: Advance = ignore) -> NDArray[np.float64]:
        """Log-probabilities `(n_contexts, n_vocabulary)` of the token after each context `(length,)`. Of a context that begins with another only the
        tokens after that are computed. `like`, of the same shape, is as for `next_token`.

        Raises:
            ModelError: the engine does not compute it.
        """
        found, before = np.empty((len(contexts), self._n_vocabulary)), list[int]()
        tokens = [context.tolist() for context in contexts]
        for i in sorted(range(len(tokens)), key=tokens.__getitem__):  # each right after the one that it begins with
            goes_on = 0 < len(before) < len(tokens[i]) and tokens[i][: len(before)] == before
            found[i] = completed(self._most_likely(tokens[i], goes_on=goes_on), like[i])
            before = tokens[i]
            advance(1)
        return found

    def next_token(self, context: list[int] | str, like: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Log-probabilities `(n_vocabulary,)` of the token after `context`, token ids or a text that the engine tokenizes itself.

        Of a vocabulary of more than `REPORTED` tokens the engine tells those of the most likely ones; all others share what is left as in `like`
        `(n_vocabulary,)`, or equally. A divergence from `like` then counts them as one outcome, which never raises it (see `TopKullbackLeibler`).

        Raises:
            ModelError: the engine does not compute it.
        """
        return completed(self._most_likely(context, goes_on=False), np.zeros(self._n_vocabulary) if like is None else like)

    def _most_likely(self, context: list[int] | str, *, goes_on: bool) -> NDArray[np.float64]:
        """Return the log-probabilities `(n_vocabulary,)` of the most likely tokens after `context`, and -∞ for all others; `goes_on`: the context
        before is its beginning.
        """
        request = {
            "prompt": context,
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": min(self._n_vocabulary, REPORTED),
            "cache_prompt": goes_on,
            # The server gives no log-probabilities when an end token or half a character is drawn; a bias moves the draw, not what is reported.
            "logit_bias": [["a", 1000]],
        }
        first = self._answer(request)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = np.full(self._n_vocabulary, -np.inf)
        found[[entry["id"] for entry in first]] = [entry["logprob"] for entry in first]
        return found

    def generate(self, prompt: str, n_tokens: int) -> Generated:
        """Continue `prompt` greedily by at most `n_tokens` tokens.

        Raises:
            ModelError: the engine does not compute them.
        """
        started = time.perf_counter()
        answer = self._answer({"prompt": prompt, "max_tokens": n_tokens, "temperature": 0.0})
        seconds, n_generated = time.perf_counter() - started, int(answer["usage"]["completion_tokens"])
        reported = float(answer.get("timings", {}).get("predicted_per_second", 0.0))
        return Generated(str(answer["choices"][0]["text"]), reported or n_generated / seconds)

    def seconds_per_token(self, n_tokens: int) -> float:
        """Seconds for each of `n_tokens` that are written after a short prompt.

        On one thread they are processor seconds of this process: the time that the text takes on an idle machine, and other work hardly changes it.
        On several they are those that pass, which means something only where the machine has nothing else to do.
        """
        spent = []
        for n in (2, 2 + n_tokens):
            started = self._clock()
            self._answer({"prompt": [5, 6, 7], "max_tokens": n, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False})
            spent.append(self._clock() - started)
        return (spent[1] - spent[0]) / n_tokens

    def seconds_per_prompt_token(self, n_tokens: int) -> float:
        """Time each token of a prompt of `n_tokens`, which are read together."""
        started = self._clock()
        prompt = [5 + i % 200 for i in range(n_tokens)]
        self._answer({"prompt": prompt, "max_tokens": 1, "temperature": 0.0, "cache_prompt": False})
        return (self._clock() - started) / n_tokens

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the server's answer to a request.

        Raises:
            ModelError: it is an error, such as a text longer than the context that the file allows.
        """
        answer: dict[str, Any] = self._server.handle_completions(request)
        if "error" in answer:
            why = shown(answer["error"].get("message", answer["error"]), 200)
            raise ModelError(
                f"llama.cpp must compute what it is asked; for {self._path} it does not ({why}): give shorter sequences, or another model."
            )
        return answer


def completed(told: NDArray[np.float64], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-probabilities `told` `(n_vocabulary,)` with values for the tokens that are -∞ there, which share what is left as they do in
    `like`; normalised, since they are of float32.
    """
    missing, found = np.isneginf(told), told.copy()
    if missing.any():
        left = max(1 - np.exp(told).sum(), np.finfo(np.float32).eps)
        found[missing] = like[missing] - np.logaddexp.reduce(like[missing]) + np.log(left)
    normalised: NDArray[np.float64] = found - np.logaddexp.reduce(found)
    return normalised
