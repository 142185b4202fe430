"""What was built is compared, to the bit, with what was recorded when it was."""

import subprocess
from pathlib import Path

import pytest

from bitwright.compress import digest_record, forget_digests, record_digests, require_as_built
from bitwright.errors import BrokenPromiseError, ModelError, OutputError
from tests.sentences import sentence


@pytest.fixture(params=["model.gguf", "model"])
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if path.suffix:
        path.write_bytes(bytes(range(256)) * 40)
    else:
        (path / "deeper").mkdir(parents=True)
        (path / "config.json").write_text("{}", encoding="utf-8")
        (path / "deeper" / "a file.safetensors").write_bytes(b"\0" * 1000)
    record_digests(path)
    return path


def test_what_is_as_it_was_built_passes(built: Path) -> None:
    assert require_as_built(built)
    forget_digests(built)
    forget_digests(built)
    assert not require_as_built(built)


def test_any_flipped_bit_is_noticed(built: Path) -> None:
    for file in [path for path in (built, *built.rglob("*")) if path.is_file()]:
        whole = file.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            with pytest.raises(BrokenPromiseError) as caught:
                require_as_built(built)
            sentence(caught.value, file, digest_record(built).name)
        file.write_bytes(whole)
    assert require_as_built(built)


def test_files_that_are_new_or_gone_are_noticed(built: Path) -> None:
    if built.is_dir():
        (built / "more").write_bytes(b"")
        with pytest.raises(BrokenPromiseError, match="more"):
            require_as_built(built)
        (built / "more").unlink()
        (built / "config.json").unlink()
        with pytest.raises(BrokenPromiseError, match=r"config\.json"):
            require_as_built(built)


def test_sha256sum_reads_the_record(built: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", digest_record(built).name], cwd=built.parent, check=True, capture_output=True)


def test_a_record_that_cannot_be_read_or_written_is_told(built: Path) -> None:
    digest_record(built).write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError) as caught:
        require_as_built(built)
    sentence(caught.value, digest_record(built))
    with pytest.raises(OutputError):
        record_digests(built.parent / "gone")
