"""Error rate on a multiple-choice or cloze task, from the log-likelihoods of the answers.

A multiple-choice item is correct if the gold option has the highest log-likelihood Σ log p(token) over its continuation, a cloze item if every token
of the continuation is the most likely one, i.e. if greedy decoding would produce it. This is `acc` of lm-eval (Gao et al., 2024); its `acc_norm`,
which divides by the length in characters so that long answers are not at a disadvantage, is `TaskErrorByLength`.

Context and continuation are tokenized as one text. The tokens that this shares with the context tokenized alone, from the start, are the context; all
from the first differing token on are the continuation, so a token that spans the border belongs to the continuation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives.measurement import Estimate, standard_error
from bitwright.objectives.metrics.tasks import Item, Task
from bitwright.objectives.objective import ModelObjective
from bitwright.objectives.reference import OF_MODEL, require_finite
from bitwright.objectives.text.tokens import require_known, start_tokens

_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood in nats of a continuation after its context, and whether each of its tokens is the most likely one."""

    nats: float
    is_greedy: bool


@dataclass(frozen=True)
class TaskError(ModelObjective):
    """Share of wrong answers, options compared by their total log-likelihood; the standard error is binomial."""

    task: Task
    unit = "share of items"

    @property
    def name(self) -> str:
        """Return e.g. `error:tasks/piqa.jsonl`."""
        return f"error:{self.task.name}"

    def evaluate_model(self, model: Model) -> Estimate:
        """Return the share of items answered wrongly by log-likelihood."""
        found = _of_items(model, self.task.items)
        right = [_is_right(item, likelihoods, [1] * len(likelihoods)) for item, likelihoods in zip(self.task.items, found, strict=True)]
        return _share(right)


@dataclass(frozen=True)
class TaskErrorByLength(ModelObjective):
    """Share of wrong answers, options compared by their log-likelihood per character; the standard error is binomial."""

    task: Task
    unit = "share of items"

    @property
    def name(self) -> str:
        """Return e.g. `length-error:tasks/piqa.jsonl`."""
        return f"length-error:{self.task.name}"

    def evaluate_model(self, model: Model) -> Estimate:
        """Return the share of items answered wrongly by log-likelihood per character."""
        found = _of_items(model, self.task.items)
        lengths = ([len(continuation.strip()) for _, continuation in item.options] for item in self.task.items)
        right = [_is_right(item, likelihoods, n) for item, likelihoods, n in zip(self.task.items, found, lengths, strict=True)]
        return _share(right)


def likelihoods(model: Model, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """Return the likelihood of each continuation after its context, given as pairs (context, continuation).

    Raises:
        ModelError: a logit is not finite.
        ObjectiveError: a continuation does not fit into the model's context length.
    """
    rows = [_encoded(model, *pair) for pair in pairs]
    longest_first = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    found: dict[int, Likelihood] = {}
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = longest_first[start : start + _ROWS_AT_ONCE]
        found.update(zip(batch, _of_rows(model, [rows[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(rows))]


def _of_items(model: Model, items: Sequence[Item]) -> list[list[Likelihood]]:
    """Return the likelihoods of the options of each item."""
    flat = iter(likelihoods(model, [pair for item in items for pair in item.options]))
    return [[next(flat) for _ in item.options] for item in items]


def _is_right(item: Item, options: list[Likelihood], lengths: list[int]) -> bool:
    if len(options) == 1:
        return options[0].is_greedy
    return int(np.argmax([option.nats / length for option, length in zip(options, lengths, strict=True)])) == item.gold


def _share(right: list[bool]) -> Estimate:
    """Return the share e of wrong answers; the standard error of a mean of zeros and ones is √(e (1 − e) / (n − 1))."""
    wrong = 1 - np.array(right, dtype=np.float64)
    return Estimate(float(wrong.mean()), standard_error(wrong))


def _encoded(model: Model, context: str, continuation: str) -> tuple[list[int], int]:
    """Return the token ids of both texts as one, and how many of the last ones are the continuation: one at least."""
    tokenizer = model.tokenizer
    whole, alone = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (context + continuation, context))
    n_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole[:-1], alone, strict=False)))
    start = start_tokens(tokenizer) or ([] if n_shared else [tokenizer.eos_token_id or 0])  # something must stand before the continuation
    require_known(np.array([*start, *whole]), model, text=f"the task's '{(context + continuation)[:40].strip()}...'")
    limit = model.module.config.get_text_config().max_position_embeddings
    if (n_continuation := len(whole) - n_shared) >= limit:
        raise ObjectiveError(
            f"A continuation must be shorter than the context length of {limit} tokens; '{continuation[:40].strip()}...' has {n_continuation}: "
            "leave the item out."
        )
    return [*start, *whole][-limit:], n_continuation


@torch.inference_mode()
def _of_rows(model: Model, rows: list[tuple[list[int], int]]) -> list[Likelihood]:
    """Return the likelihoods of encoded rows; short rows are padded at the end, where a causal model does not see the padding."""
    length = max(len(ids) for ids, _ in rows)
    filled = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows], device=model.device)
    places = [np.arange(len(ids) - n - 1, len(ids) - 1) for ids, n in rows]  # each token is predicted at the one before it
    keep = np.unique(np.concatenate(places))
    logits = model.module(filled, use_cache=False, logits_to_keep=torch.from_numpy(keep).to(model.device)).logits.float()
    found = require_finite(logits, OF_MODEL).log_softmax(dim=-1).cpu()
    return [_of_row(found[i, np.searchsorted(keep, place)], ids[-n:]) for i, (place, (ids, n)) in enumerate(zip(places, rows, strict=True))]


def _of_row(log_probabilities: torch.Tensor, labels: list[int]) -> Likelihood:
    """Return the likelihood of the `n` tokens `labels` of a continuation from log-probabilities `(n, n_vocabulary)`."""
    target = torch.tensor(labels)
    nats = log_probabilities.gather(-1, target[:, None]).double().sum()
    return Likelihood(float(nats), bool((log_probabilities.argmax(dim=-1) == target).all()))
