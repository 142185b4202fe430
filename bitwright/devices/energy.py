"""Read the energy counters of processor packages from Linux's power capping framework (RAPL on Intel and AMD).

`/sys/class/powercap/intel-rapl:N` with the name `package-N` counts microjoules in `energy_uj` and wraps around at `max_energy_range_uj` (Linux
kernel documentation, power/powercap). It covers the whole processor, but neither memory nor graphics cards. On most machines only root may read
it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(eq=False)
class Metered:
    """Energy in joules used by a `with` block."""

    joules: float = 0.0


@dataclass(frozen=True)
class PackageEnergy:
    """Energy counters of a machine's processor packages; empty where there are none, or where they may not be read."""

    packages: tuple[Path, ...]

    @property
    def is_known(self) -> bool:
        """Return whether there is a readable counter."""
        return bool(self.packages)

    @contextmanager
    def metered(self) -> Iterator[Metered]:
        """Measure the energy of a `with` block; the result is filled in when the block ends."""
        found, before = Metered(), [_read(package / "energy_uj") for package in self.packages]
        yield found
        for package, start in zip(self.packages, before, strict=True):
            used = _read(package / "energy_uj") - start
            found.joules += 1e-6 * (used if used >= 0 else used + _read(package / "max_energy_range_uj"))


def package_energy(root: Path = POWERCAP) -> PackageEnergy:
    """Return the counters that can be read under `root`."""
    return PackageEnergy(tuple(sorted(name.parent for name in root.glob("*/name") if _is_package(name))))


def _is_package(name: Path) -> bool:
    try:
        return name.read_text(encoding="ascii").startswith("package") and _read(name.with_name("energy_uj")) >= 0
    except (OSError, ValueError):
        return False


def _read(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
