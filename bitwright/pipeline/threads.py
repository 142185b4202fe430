"""Threads of a run. Sums of floats depend on how many there are, so that a run keeps the number that it began with."""

import torch

from bitwright.devices import FREE, n_threads, processors
from bitwright.objectives import Store
from bitwright.progress import Progress

_THREADS = "threads"


def use_threads(asked: str, store: Store, progress: Progress) -> None:
    """Set the threads of torch, which quantizers and llama.cpp have too: as many as is `asked`, and where that is `free` or nothing as the run in
    `store` had before. A run that says nothing leaves the number as it is: one on each processor, if nothing in this process has changed it.
    """
    known = store.text(_THREADS) if store.has_text(_THREADS) else ""
    if not asked and not known:
        return
    set_threads(known if known and asked in ("", FREE) else asked)
    if asked == FREE or not asked:
        why = "as the run began with" if known else "which nothing else uses now"
        progress.note(f"The run has threads for {torch.get_num_threads()} of {processors()} processors, {why}.")


def set_threads(word: str) -> None:
    """Set the threads of torch to one of `thread_words`, and at most one on each processor."""
    torch.set_num_threads(min(n_threads(word), processors()))


def keep_threads(asked: str, store: Store) -> None:
    """Store the number of threads in the run where one was `asked` for."""
    if asked:
        store.put_text(_THREADS, str(torch.get_num_threads()))
