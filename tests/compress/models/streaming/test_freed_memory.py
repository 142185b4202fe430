import subprocess
import sys
import threading

import psutil
import pytest

from bitwright.compress.models.streaming import freed_memory
from bitwright.compress.models.streaming.freed_memory import return_freed_memory

_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep nothing or say nothing")
#: threads that are all there at once, as the jobs of a streamed model are, each of which has freed 30 pieces of 1 MB
_THREADS = """
import runpy, sys, threading
from pathlib import Path
memory = runpy.run_path(sys.argv[1])
if sys.argv[2] == "shared":
    memory["share_memory"]()
done = threading.Barrier(5)
def work():
    large = bytearray(20 << 20)  # once it is freed, the C library keeps what is smaller
    del large
    pieces = [bytearray(1 << 20) for _ in range(30)]
    del pieces
    done.wait()
    done.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
done.wait()
memory["return_freed_memory"]()
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
done.wait()
"""


@_LINUX
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


@_LINUX
def test_threads_that_share_memory_keep_nothing_of_their_own() -> None:
    """Compare processes of their own, since what a process has decided for its threads stays."""
    kept = {}
    for way in ("apart", "shared"):
        found = subprocess.run([sys.executable, "-c", _THREADS, freed_memory.__file__, way], capture_output=True, text=True, check=True)
        kept[way] = int(found.stdout) / 1024
    assert kept["apart"] - kept["shared"] > 60  # of 120 MB
