"""Open the workers of a run for as long as it needs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bitwright.compress import Room, absolute_name, needed_bytes
from bitwright.devices import FREE
from bitwright.errors import UserError
from bitwright.pipeline.settings import DTYPES, Settings
from bitwright.pipeline.threads import set_threads
from bitwright.pipeline.workers.cluster import Cluster, require_divisible
from bitwright.pipeline.workers.ray_cluster import require_ray
from bitwright.pipeline.workers.ray_workers import open_workers
from bitwright.pipeline.workers.workers import Workers
from bitwright.progress import Progress


@contextmanager
def workers_on(cluster: Cluster | None, settings: Settings, folder: Path, *, device: str, progress: Progress) -> Iterator[Workers | None]:
    """Have workers on a cluster load the model of a run, none where there is no cluster; they end with the `with` block.

    A worker streams the model if the driver does: it has as much memory as the driver thinks that it needs.

    Raises:
        LibraryError: Ray is not installed.
        UserError: the run's work cannot be divided, or the cluster cannot be reached or has no room.
    """
    if cluster is None:
        yield None
        return
    require_divisible(settings)
    require_ray()
    if settings.threads == FREE:
        raise UserError(f"Workers have as many threads as the driver, and '{FREE}' counts the processors of one machine: give --threads a number.")
    if settings.threads:
        set_threads(settings.threads)
    settings = settings.on_device(device)
    room = Room(folder, settings.search_memory_bytes, stream=settings.stream, sequence_length=settings.sequence_length)
    n_bytes, is_streamed = needed_bytes(settings.model, room, dtype=DTYPES[settings.dtype])
    of_worker = replace(settings, model=absolute_name(settings.model), search_memory_bytes=n_bytes, stream=is_streamed)
    with open_workers(cluster, of_worker, device=device, memory_bytes=n_bytes, progress=progress) as workers:
        yield workers
