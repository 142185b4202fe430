"""Ray cluster that a run joins or starts, and the room that it has for workers."""

import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from bitwright.errors import LibraryError, UserError, shown
from bitwright.pipeline.workers.cluster import AUTO, Cluster

_SECONDS = 10.0  # for a cluster to answer


def require_ray() -> ModuleType:
    """Return the library.

    Raises:
        LibraryError: it is not installed.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of it
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise LibraryError(
            f"Workers in a cluster need ray, which cannot be imported ({error}): run `pip install 'bitwright[ray]'`, or leave out --ray."
        ) from error


@contextmanager
def joined(ray: ModuleType, cluster: Cluster) -> Iterator[None]:
    """Join a cluster for as long as the block lasts, unless this process has done so itself.

    Raises:
        UserError: there is none at the address.
    """
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address == AUTO:
            _auto(ray, quiet)
        else:
            _require_listening(cluster.address)
            ray.init(address=cluster.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"A Ray cluster must be reachable at --ray {cluster.address}; it is not ({shown(error, 200)}): start it with `ray start --head`, or use "
            f"--ray {AUTO}."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Connect once, since Ray itself tries for minutes.

    Raises:
        OSError: nothing listens there.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_SECONDS):
        pass


def _auto(ray: ModuleType, quiet: dict[str, Any]) -> None:
    """Join the cluster that runs on this machine, or start one."""
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(include_dashboard=False, **quiet)


def room_for(nodes: Sequence[Mapping[str, float]], n_workers: int, *, n_gpus: int, memory_bytes: int) -> int:
    """Return the number of workers, where that is 0 one on each node, or on each `n_gpus` of its GPUs, as far as there is room.

    Raises:
        UserError: the nodes have no room for so many.
    """
    slots = [int(node.get("GPU", 0) // n_gpus if n_gpus else node.get("CPU", 0)) for node in nodes]
    room = [min(n, int(node.get("memory", 0) // memory_bytes)) for n, node in zip(slots, nodes, strict=True)]
    wanted = n_workers or max(1, sum(room) if n_gpus else sum(n > 0 for n in room))
    if wanted <= sum(room):
        return wanted
    place = f"{n_gpus} GPUs" if n_gpus else "a CPU"
    free = ", ".join(f"{node.get('memory', 0) / 1e9:.1f} GB and {n} places" for n, node in zip(slots[:8], nodes, strict=False))
    way_out = f"give at most --workers {sum(room)}, or" if sum(room) else "add nodes, or give"
    raise UserError(
        f"Each worker needs {memory_bytes / 1e9:.2f} GB for the model and {place}; the cluster's nodes have {free}, which is room for {sum(room)} of "
        f"{wanted} workers: {way_out} a smaller --search-memory, with which the model is streamed."
    )
