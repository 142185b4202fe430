"""Start of the command, before anything heavy is loaded: torch and numpy's library end a process that lacks memory without a word."""

import os
import resource
import sys
from collections.abc import Mapping
from importlib import import_module

_LEAST_BYTES = 3 << 29  # of addresses, which the libraries take up before they do anything
# Threads of OpenMP spin while they wait for each other, which beside other work takes the processor from those that they wait for. A short spin (in
# GNU's OpenMP) bridges the time from one operation to the next, at which waking a thread would leave a core idle.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "0"}
# Logits are hundreds of megabytes, allocated anew for every batch: with huge pages a tenth of the time that small ones take (Linux).
_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}


def main() -> None:
    """Run the command line, or say in a sentence that it may have too little memory even to be loaded."""
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed != resource.RLIM_INFINITY and allowed < _LEAST_BYTES:
        sys.stderr.write(
            f"bitwright: The command needs at least {_LEAST_BYTES:,} bytes of addresses; it may have {allowed:,}: raise the limit (ulimit -v).\n"
        )
        sys.exit(2)
    for name, value in (waiting(os.environ) | _PAGES).items():
        os.environ.setdefault(name, value)
    import_module("bitwright.cli.commands").main()


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """Return how threads wait for each other where `environment` does not say it."""
    return {} if "OMP_WAIT_POLICY" in environment else _WAITING
