"""No verb writes over, into or around what it reads, or replaces what Bitwright did not write; all of that is found out before any work."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bitwright as bw
from bitwright.devices.device import read_device
from bitwright.errors import OutputError
from bitwright.pipeline import Run
from bitwright.pipeline.channel_order import order_channels
from bitwright.pipeline.exchange import import_plan
from bitwright.pipeline.fleet import DeviceWithoutPlan, Fleet
from bitwright.pipeline.fleet_files import plan_names, write_fleet
from bitwright.pipeline.verbs import write_plan
from bitwright.written_files import RECORD
from tests.fits import Fit
from tests.runs import small
from tests.sentences import sentence

BUDGET, BIT_BUDGET = bw.parse_budget("5bpw"), bw.parse_budget("7.5bpw")


def contents(folder: Path) -> dict[str, str]:
    """A digest of everything below a folder but the records and locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (RECORD, ".lock"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_fit_does_not_replace_the_file_that_it_reads(gguf_256: Path, tmp_path: Path) -> None:
    shutil.copyfile(gguf_256, tmp_path / "model.gguf")
    (tmp_path / "link").symlink_to(tmp_path)
    before = contents(tmp_path)
    for model, out in (("model.gguf", "."), ("link/model.gguf", "."), ("model.gguf", "link")):
        with pytest.raises(OutputError) as refused:
            bw.fit(small(tmp_path / model), BUDGET, tmp_path / out)
        sentence(refused.value, "which is read")
        assert contents(tmp_path) == before
    os.link(tmp_path / "model.gguf", tmp_path / "hard.gguf")
    with pytest.raises(OutputError):
        bw.fit(small(tmp_path / "hard.gguf"), BUDGET, tmp_path)


@pytest.mark.parametrize("out", [".", "model", "model/run"])
def test_fit_does_not_replace_the_folder_that_it_reads_or_write_into_it(llama_96: Path, out: str, tmp_path: Path) -> None:
    shutil.copytree(llama_96, tmp_path / "model")
    before = contents(tmp_path)
    with pytest.raises(OutputError):
        bw.fit(small(tmp_path / "model", target="transformers", formats=()), BUDGET, tmp_path / out)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["model.gguf", "plan.json", "plan.tensor-types.txt", "report.html", "imatrix.gguf", "levels/mine"])
def test_fit_does_not_begin_where_a_stranger_s_file_has_the_name_of_a_result(gguf_256: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"a stranger's")
    with pytest.raises(OutputError) as refused:
        bw.fit(small(gguf_256), BUDGET, tmp_path)
    sentence(refused.value, tmp_path / name.split("/")[0], "remove it yourself")
    assert [path.name for path in tmp_path.iterdir()] == [name.split("/")[0]]


@pytest.mark.slow
def test_build_replaces_neither_a_stranger_s_folder_nor_what_the_plan_is_built_from(fit_of_gguf: Fit, tmp_path: Path) -> None:
    shutil.copyfile(fit_of_gguf.settings.model, tmp_path / "model.gguf")
    source = fit_of_gguf.fitted.plan.model.model_copy(update={"source": str(tmp_path / "model.gguf")})
    plan = fit_of_gguf.fitted.plan.model_copy(update={"model": source})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "optimizer.pt").write_bytes(b"a stranger's")
    before = contents(tmp_path)
    for out in ("model.gguf", "checkpoints", "checkpoints/optimizer.pt"):
        with pytest.raises(OutputError):
            bw.build(plan, tmp_path / out)
        assert contents(tmp_path) == before
    with pytest.raises(OutputError):
        bw.build(plan, Path(plan.importance.path))


@pytest.mark.slow
def test_a_built_file_is_replaced_and_a_changed_one_is_not(fit_of_gguf: Fit, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    for _ in range(2):
        bw.build(fit_of_gguf.fitted.plan, out)
    with out.open("ab") as file:
        file.write(b"mine")
    with pytest.raises(OutputError, match="changed since"):
        bw.build(fit_of_gguf.fitted.plan, out)
    assert out.read_bytes()[-4:] == b"mine"


@pytest.mark.slow
def test_a_plan_that_was_edited_is_not_replaced(fit_of_gguf: Fit, tmp_path: Path) -> None:
    write_plan(fit_of_gguf.fitted.plan, tmp_path / "plan.json")
    write_plan(fit_of_gguf.fitted.plan, tmp_path / "plan.json")
    (tmp_path / "plan.tensor-types.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"tensor-types\.txt was changed since"):
        write_plan(fit_of_gguf.fitted.plan, tmp_path / "plan.json")
    assert contents(tmp_path) == before


def test_order_and_import_hold_apart_what_they_read(llama_96: Path, gguf_256: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        order_channels(str(llama_96), "self", llama_96 / "ordered")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a").touch()
    with pytest.raises(OutputError, match="did not write"):
        order_channels(str(llama_96), "self", tmp_path / "taken")
    (tmp_path / "imatrix.gguf").write_bytes(b"mine")
    (tmp_path / "types.txt").write_text("a=q8_0")
    with pytest.raises(OutputError, match=r"imatrix\.gguf is there"):
        import_plan(small(gguf_256), tmp_path / "types.txt", "llama-quantize", tmp_path)


# --- fleets


def fleet_of(run: Run, *names: str) -> Fleet:
    device = read_device("l4-24gb")
    return Fleet(run, tuple(DeviceWithoutPlan(device.__class__(**{**vars(device), "name": name}), "nothing fits") for name in names))


@pytest.mark.slow
def test_every_device_has_a_plan_of_a_name_of_its_own_that_can_be_read(searched: Run) -> None:
    names = ("A b", "a-b", "设备一", "设备二", "Ａ Ｂ", "…", "?", "straße", "STRASSE", "../../etc/passwd", "n" * 400, "名" * 400, "\0")
    found = plan_names(fleet_of(searched, *names))
    assert found[:4] == ["plans/a-b.json", "plans/a-b-2.json", "plans/设备一.json", "plans/设备二.json"]
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert name.count("/") == 1
        assert not name.removeprefix("plans/").startswith((".", "-"))
        assert len(name.encode()) < 130
        assert "\0" not in name


@pytest.mark.slow
def test_a_fleet_does_not_replace_a_stranger_s_manifest(searched: Run, tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text("mine")
    with pytest.raises(OutputError):
        write_fleet(fleet_of(searched, "a"), tmp_path, checksums={})
    assert (tmp_path / "fleet.json").read_text() == "mine"


# --- a run that can only be read


@pytest.fixture
def read_only(searched: Run, tmp_path: Path) -> Iterator[Path]:
    """A copy of a run on a file system that cannot be written, where this user may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("only root makes a file system that cannot be written")
    shutil.copytree(searched.folder, tmp_path / "run")
    bw.plan(bw.open_run(tmp_path / "run"), BIT_BUDGET)  # measures its candidates
    shutil.copytree(tmp_path / "run", disk / "run", ignore=shutil.ignore_patterns("*-shm"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield disk / "run"
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_read(searched: Run, read_only: Path, tmp_path: Path) -> None:
    run = bw.open_run(read_only)
    assert set(bw.open_run(searched.folder).measurements) <= set(run.measurements)
    made, _ = bw.plan(run, BIT_BUDGET)
    assert made.found.budget == BIT_BUDGET.text
    assert bw.pipeline.describe(run).original_bytes == searched.original_bytes
    with pytest.raises(OutputError) as refused:
        run.store.put_text("a", "b")
    sentence(refused.value, read_only)
    with pytest.raises(OutputError):
        bw.pipeline.search(run.settings, read_only)


@pytest.mark.slow
def test_a_run_that_is_removed_meanwhile_is_said(searched: Run, tmp_path: Path) -> None:
    shutil.copytree(searched.folder, tmp_path / "run")
    run = bw.open_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OutputError) as refused:
        run.store.put_text("a", "b")
    sentence(refused.value, "removed or replaced")
