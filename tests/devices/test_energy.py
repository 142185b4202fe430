"""Counters of energy, on a made-up tree of the kernel's files."""

from pathlib import Path

import pytest

from bitwright.devices import package_energy


def counter(root: Path, zone: str, *, name: str, microjoules: int) -> Path:
    folder = root / zone
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n", encoding="ascii")
    (folder / "energy_uj").write_text(f"{microjoules}\n", encoding="ascii")
    (folder / "max_energy_range_uj").write_text("1000000\n", encoding="ascii")
    return folder / "energy_uj"


def test_packages_are_summed_and_begin_anew(tmp_path: Path) -> None:
    first, second = (counter(tmp_path, f"intel-rapl:{i}", name=f"package-{i}", microjoules=900_000) for i in range(2))
    counter(tmp_path, "intel-rapl:0:0", name="core", microjoules=5)  # a part of a package, which holds it already
    energy = package_energy(tmp_path)
    assert energy.is_known
    assert len(energy.packages) == 2
    with energy.metered() as used:
        first.write_text("950000\n", encoding="ascii")
        second.write_text("100000\n", encoding="ascii")
    assert used.joules == pytest.approx(0.05 + 0.2)


def test_a_machine_without_counters_has_no_energy(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0\n", encoding="ascii")  # and a counter that cannot be read
    energy = package_energy(tmp_path)
    assert not energy.is_known
    with energy.metered() as used:
        pass
    assert used.joules == 0
    assert not package_energy(tmp_path / "none").is_known
