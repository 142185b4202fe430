"""Several calibration texts as one: `--calibration stories.txt:0.7,code.txt:0.3`.

Of the sequences asked for, each text gives its share, rounded by largest remainders (so the shares are those of the weights to within a sequence), as
it would by itself: spread evenly over the part of it that is calibrated on. The sequences are then shuffled by the run's seed, because a search looks
at the first few of them first, and those should be a mixture too. Which text each is from is kept, so that whatever is kept by sequence can be told
by text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import TextError
from bitwright.objectives import Store, Texts, Tokens, between_commas, is_file

_ORIGINS, _NAMES = "texts of the calibration sequences", "names of the calibration texts"


@dataclass(frozen=True)
class Share:
    """A text by its name, and its weight among those that it is mixed with."""

    name: str
    weight: float = 1.0


def shares_in(words: str) -> tuple[Share, ...]:
    """The texts that `words` name, with commas between; a number behind the last colon of a name is its weight, 1 where there is none. A file
    may have commas, and such a colon, in its name.

    Raises:
        TextError: no text, a weight that is not above zero, or a text that is named twice.
    """
    shares = tuple(_share(part) for part in between_commas(words, lambda word: is_file(_parted(word)[0])))
    names = [share.name for share in shares]
    if not shares or not all(names):
        raise TextError(f"Calibration needs a text; '{words}' names none: give a file, a dataset, or self.")
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise TextError(f"Every text of a mixture counts once; {twice} is named twice: add up its weights.")
    return shares


def parts_of(total: int, shares: Sequence[Share]) -> list[int]:
    """How many of `total` sequences each text gives.

    Raises:
        TextError: one of them would give none.
    """
    weights = np.array([share.weight for share in shares])
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    for share, count in zip(shares, counts, strict=True):
        if not count:
            raise TextError(
                f"Every text of a mixture must give a sequence; {share.name} gives none of {total}: raise its weight, or the number of sequences."
            )
    return [int(count) for count in counts]


def keep_origins(store: Store, shares: Sequence[Share], origins: NDArray[np.int64]) -> None:
    """Keep in a run which texts are mixed, and the one `(n_sequences,)` that each calibration sequence is from."""
    store.put_text(_NAMES, json.dumps([Path(share.name).name for share in shares]))
    store.put_array(_ORIGINS, origins)


def text_names(store: Store) -> tuple[str, ...]:
    """The calibration texts that are mixed in a run, none where there is but one."""
    return tuple(json.loads(store.text(_NAMES))) if store.has_text(_NAMES) else ()


def sequences_by_text(store: Store) -> list[NDArray[np.int64]]:
    """Which calibration sequences are from each text, in their order; nothing where there is but one."""
    names = text_names(store)
    origins = store.array(_ORIGINS) if names else np.zeros(0)
    return [np.flatnonzero(origins == text) for text in range(len(names))]


def mixed(parts: Sequence[tuple[Share, Texts]], *, counts: Sequence[int], seed: int) -> tuple[Texts, NDArray[np.int64]]:
    """One text of several, of which each must give `counts` sequences to calibrate on, and the text `(n_sequences,)` that each of those is from.

    Raises:
        TextError: a text is too short for its share.
    """
    for (share, texts), count in zip(parts, counts, strict=True):
        if len(texts.calibration.ids) < count:
            raise TextError(
                f"A text must be long enough for its share of a mixture; {share.name} has {len(texts.calibration.ids)} of {count} sequences: give "
                "more of it, a smaller weight, or fewer --calibration-sequences."
            )
    origins = np.repeat(np.arange(len(parts)), counts)
    order = np.random.default_rng(seed).permutation(len(origins))
    ids = np.concatenate([texts.calibration.ids for _, texts in parts])[order]
    held_out = np.concatenate([texts.held_out.ids for _, texts in parts])
    said = [f"{count} of {texts.calibration.text}" for (_, texts), count in zip(parts, counts, strict=True)]
    judged = [f"{len(texts.held_out.ids)} of {texts.held_out.text}" for _, texts in parts]
    mixture = f"{' + '.join(said)}, mixed (seed {seed})"
    return Texts(Tokens(ids, mixture), Tokens(held_out, " + ".join(judged))), origins[order]


def _share(part: str) -> Share:
    name, weight = _parted(part)
    if not 0 < weight < inf:
        raise TextError(f"The weight of a text must be a number above 0; that of {name} is {weight:g}: leave out a text that is not wanted.")
    return Share(name, weight)


def _parted(part: str) -> tuple[str, float]:
    """A name, and the number behind its last colon, 1 where there is none: what stands there otherwise is of a file's name, or of a dataset's."""
    name, colon, weight = part.rpartition(":")
    if is_file(part) or not colon:
        return part, 1.0
    try:
        return name, float(weight)
    except ValueError:
        return part, 1.0
