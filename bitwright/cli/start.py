"""Start of the command, before anything heavy is loaded: torch and numpy's library end a process that lacks memory without a word."""

import os
import resource
import sys
from importlib import import_module

_LEAST_BYTES = 3 << 29  # of addresses, which the libraries take up before they do anything
# Threads of OpenMP spin while they wait for each other, which beside other work takes the processor from those that they wait for.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
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
    for name, value in (_WAITING | _PAGES).items():
        os.environ.setdefault(name, value)
    import_module("bitwright.cli.commands").main()
