"""Texts that the user gives: files and datasets, as the sequences of a model's tokens."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from bitwright.objectives.text.documents import Document, dataset_documents, read_documents
from bitwright.objectives.text.tokens import Shape, Texts, split_texts
from bitwright.objectives.text.words import is_file

_KEPT = 8  # texts in memory: those of a mixture, which are checked before the model is loaded and taken afterwards


def given_texts(name: str, tokenizer: PreTrainedTokenizerBase, shape: Shape, *, n_rows: int, column: str) -> Texts:
    """Return the sequences of a file or dataset, whose text is in `column`; a file that has not changed is read and tokenized once.

    `n_rows` is the number of rows of the model's embedding.

    Raises:
        TextError: there is no such text, it is too short, or it has tokens that the embedding has no row for.
        LibraryError: a package to read it is missing.
    """
    about = Path(name).stat() if is_file(name) else None
    stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns) if about else ()
    return _split(name, stamp, tokenizer, shape, n_rows=n_rows, column=column)


@lru_cache(maxsize=_KEPT)
def _split(name: str, stamp: tuple[int, ...], tokenizer: PreTrainedTokenizerBase, shape: Shape, *, n_rows: int, column: str) -> Texts:  # noqa: ARG001
    """Split a text; `stamp` is part of the cache key: one version of its file."""
    return split_texts(documents_of(name, column), tokenizer, shape, name=Path(name).name, n_rows=n_rows)


def documents_of(name: str, column: str = "") -> list[Document]:
    """Return the documents of a file or a dataset, whose text is in `column`.

    Raises:
        TextError: there is no such file or dataset, or it has no text.
        LibraryError: a package to read it is missing.
    """
    return read_documents(Path(name), column) if is_local(name) else dataset_documents(name, column)


def is_local(name: str) -> bool:
    """Return whether a text of that name is a file, not a dataset."""
    with suppress(OSError, ValueError):  # no valid file name
        return bool(Path(name).suffix) or Path(name).exists()
    return False
