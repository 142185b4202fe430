"""File of one packed tensor: its bytes followed by a digest, so that truncation, corruption and swapped files are detected.

The digest is SHA-256 over the name of the tensor and its format and the bytes. Each file is verified once per process, and again if it was rewritten.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from bitwright.compress.models.source import Bytes
from bitwright.whole_files import write_chunks

DIGEST_BYTES = 32
_CHUNK_BYTES = 1 << 24


def write_packed(path: Path, packed: Bytes, *, key: str) -> None:
    """Write the bytes of `key`, a tensor and its format, and their digest."""
    data = np.ascontiguousarray(packed)
    write_chunks(path, [data.data, _digest_of(key, data)])


def read_packed(path: Path, *, key: str) -> Bytes | None:
    """Memory-map the bytes of `key` `(n_bytes,)`; None if the file is missing or its digest does not match.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return None
    about = path.stat()
    if not _is_sound(path, key, (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)):
        return None
    n_bytes = about.st_size - DIGEST_BYTES
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(n_bytes,)) if n_bytes else np.empty(0, dtype=np.uint8)


@cache
def _is_sound(path: Path, key: str, stamp: tuple[int, int, int, int]) -> bool:
    """Return whether the digest matches the bytes. `stamp` is the cache key of one version of the file."""
    n_bytes = stamp[1] - DIGEST_BYTES
    if n_bytes < 0:
        return False
    found, left = hashlib.sha256(key.encode() + b"\0"), n_bytes
    with path.open("rb") as file:
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            found.update(chunk)
            left -= len(chunk)
        return not left and file.read() == found.digest()


def _digest_of(key: str, data: Bytes) -> bytes:
    found = hashlib.sha256(key.encode() + b"\0")
    found.update(data.data)
    return found.digest()
