"""Mixture of several calibration texts: `--calibration stories.txt:0.7,code.txt:0.3`.

Each text gives its share of the sequences, rounded by largest remainders (so each share is exact to within one sequence), taken as from a single
text: spread evenly over its calibration part. The sequences are then shuffled with the run's seed, because a search evaluates on the first few of
them first, and those should be a mixture too. The run stores which text each sequence is from, so that results by sequence can be split by text.
"""

import filecmp
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import TextError
from bitwright.objectives import Shape, Store, Texts, Tokens, between_commas, is_file

_ORIGINS, _NAMES = "texts of the calibration sequences", "names of the calibration texts"


@dataclass(frozen=True)
class Share:
    """A text's name, and its weight in the mixture."""

    name: str
    weight: float = 1.0


def shares_in(words: str) -> tuple[Share, ...]:
    """Parse comma-separated texts; a number behind the last colon of a name is its weight, 1 by default. Commas and such a colon in the name of an
    existing file are part of its name.

    Raises:
        TextError: there is no text, a weight is not above zero, or a text is named twice.
    """
    shares = tuple(_share(part) for part in between_commas(words, lambda word: is_file(_parted(word)[0])))
    names = [share.name for share in shares]
    if not shares or not all(names):
        raise TextError(f"Calibration needs a text; '{words}' names none: give a file, a dataset, or self.")
    files = [_file_of(name) for name in names]
    twice = next((name for name, file in zip(names, files, strict=True) if files.count(file) > 1), "")
    if twice:
        raise TextError(f"Every text of a mixture counts once; {twice} is named twice: add up its weights.")
    return shares


def require_held_out(calibration: str, held_out: str) -> None:
    """Require that a held-out text is not among the calibration texts, under another name or as a copy either.

    Raises:
        TextError: it is.
    """
    file = Path(held_out)
    for share in shares_in(calibration):
        if is_file(share.name) and _is_same(Path(share.name), file):
            raise TextError(
                f"A held-out text must be another than plans are calibrated on; {held_out} is that of {share.name}: leave out --held-out to hold out "
                "a part of it, or name another text."
            )


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or (one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, shallow=False))
    except OSError:  # which its reader says better
        return False


def _file_of(name: str) -> tuple[int, int] | str:
    """Return what two names of one file have in common; the name itself where it is none of a file."""
    about = Path(name).stat() if is_file(name) else None
    return (about.st_dev, about.st_ino) if about else name


def parts_of(total: int, shares: Sequence[Share]) -> list[int]:
    """Return the number of sequences of each text, `total` altogether.

    Raises:
        TextError: a text would give none.
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


def shares_of(shares: Sequence[Share], shape: Shape) -> list[Shape]:
    """Return the shape of each text: its part of the sequences of `shape`.

    Raises:
        TextError: a text would give none.
    """
    counts, held_out = (parts_of(n, shares) if n else [0] * len(shares) for n in (shape.n_calibration, shape.n_held_out))
    return [Shape(n, m, shape.length) for n, m in zip(counts, held_out, strict=True)]


def require_share(share: Share, texts: Texts, count: int) -> None:
    """Require that a text gives the `count` calibration sequences that are its part of a mixture.

    Raises:
        TextError: it is too short.
    """
    if len(texts.calibration.ids) < count:
        raise TextError(
            f"A text must be long enough for its share of a mixture; {share.name} has {len(texts.calibration.ids)} of {count} sequences: give "
            "more of it, a smaller weight, or fewer --calibration-sequences."
        )


def store_origins(store: Store, shares: Sequence[Share], origins: NDArray[np.int64]) -> None:
    """Store the names of the mixed texts in the run, and the index `origins` `(n_sequences,)` of each calibration sequence's text."""
    store.put_text(_NAMES, json.dumps([Path(share.name).name for share in shares]))
    store.put_array(_ORIGINS, origins)


def text_names(store: Store) -> tuple[str, ...]:
    """Return the names of the mixed calibration texts of a run; empty if there is a single text."""
    return tuple(json.loads(store.text(_NAMES))) if store.has_text(_NAMES) else ()


def sequences_by_text(store: Store) -> list[NDArray[np.int64]]:
    """Return the indices of each text's calibration sequences; empty if there is a single text."""
    names = text_names(store)
    origins = store.array(_ORIGINS) if names else np.zeros(0)
    return [np.flatnonzero(origins == text) for text in range(len(names))]


def mixed(parts: Sequence[tuple[Share, Texts]], *, counts: Sequence[int], seed: int) -> tuple[Texts, NDArray[np.int64]]:
    """Mix texts into one, each with its number of `counts` calibration sequences; return it and the text index of each sequence `(n_sequences,)`.

    Raises:
        TextError: a text is too short for its share.
    """
    for (share, texts), count in zip(parts, counts, strict=True):
        require_share(share, texts, count)
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
    """Split a name from its weight, the number behind the last colon. Without a number, the weight is 1 and any colon belongs to the name."""
    name, colon, weight = part.rpartition(":")
    if is_file(part) or not colon:
        return part, 1.0
    try:
        return name, float(weight)
    except ValueError:
        return part, 1.0
