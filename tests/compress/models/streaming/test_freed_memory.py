import sys
import threading

import psutil
import pytest

from bitwright.compress.models.streaming.freed_memory import return_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep nothing or say nothing")
def test_what_a_thread_freed_is_no_longer_the_process_s() -> None:
    process, kept, pieces = psutil.Process(), [], []

    def fill_and_free() -> None:
        pieces.extend(bytearray(60_000) for _ in range(2000))  # small enough to be kept
        kept.append(bytearray(60_000))  # lies behind them
        pieces.clear()

    thread = threading.Thread(target=fill_and_free)
    thread.start()
    thread.join()
    before = process.memory_info().rss
    return_freed_memory()
    assert process.memory_info().rss < before - 50_000_000
