"""Cluster that a run may use: its address, and how many workers of which kind it has there."""

from dataclasses import dataclass

from bitwright.compress import needs_moments
from bitwright.errors import UserError
from bitwright.pipeline.settings import Settings

#: the address of a cluster on this machine: joined if one runs here, else started and stopped with the command
AUTO = "auto"


@dataclass(frozen=True)
class Cluster:
    """Ray cluster at `address`, `HOST:PORT` or `auto` for one on this machine. `n_workers` of them do the run's tasks, one on each node, or for each
    `gpus_per_worker` GPUs that a node has, where that is 0.
    """

    address: str
    n_workers: int = 0
    gpus_per_worker: int = 0

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if self.address != AUTO and not (host and port.isdecimal()):
            raise UserError(f"A cluster is joined at HOST:PORT, or started here by {AUTO}; '{self.address}' is neither: write one of them.")
        for name, value in (("--workers", self.n_workers), ("--gpus-per-worker", self.gpus_per_worker)):
            if value < 0:
                raise UserError(f"Workers and their GPUs are counted from 0, which leaves it to the cluster; {name} {value} is less: give another.")


def cluster_of(address: str, n_workers: int, gpus_per_worker: int) -> Cluster | None:
    """Return the cluster of these options, None where no address is given.

    Raises:
        UserError: workers are asked for without a cluster, or an option has no meaning.
    """
    if not address and (n_workers or gpus_per_worker):
        raise UserError(f"Workers need a cluster to be on; none is given: add --ray {AUTO}, or leave out --workers and --gpus-per-worker.")
    return Cluster(address, n_workers, gpus_per_worker) if address else None


def require_divisible(settings: Settings) -> None:
    """Require that the work of a run can be divided among workers.

    Raises:
        UserError: a rounding depends on activations, which one process collects.
    """
    if needs_moments(settings.rounding):
        raise UserError(
            f"Workers quantize by rows, each independently; {settings.rounding} needs second moments of activations, which one process collects: "
            "leave out --ray, or --codec."
        )
