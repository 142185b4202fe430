from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import KeptCodes, digest, keep_codes
from bitwright.errors import OutputError, PlanError, RunError
from tests.runs import leftovers
from tests.sentences import sentence

PAIRS = [("blk.0.attn_q.weight", "INT3_G32"), ("a" * 300, "INT4_ROW"), ("blk.0.ffn_up.7.weight", "INT2_G64")]


@pytest.fixture
def levels(tmp_path: Path) -> Path:
    folder = tmp_path / "levels"
    folder.mkdir()
    for i, (tensor, form) in enumerate(PAIRS[:1] + PAIRS[2:]):
        np.arange(7 * i + 1, dtype=np.uint8).tofile(folder / f"{tensor}.{form}")
    return folder


def test_what_was_kept_is_read_back(levels: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "codes.safetensors"
    keep_codes(path, levels, [PAIRS[0], PAIRS[2]])
    codes = KeptCodes(path, digest(path))
    for tensor, form in (PAIRS[0], PAIRS[2]):
        assert np.array_equal(codes.packed(tensor, form), np.fromfile(levels / f"{tensor}.{form}", dtype=np.uint8))
    before = path.read_bytes()
    keep_codes(path, levels, [PAIRS[0], PAIRS[2]])
    assert path.read_bytes() == before
    with pytest.raises(PlanError) as caught:
        codes.packed(PAIRS[0][0], "INT4_G32")
    sentence(caught.value, "INT4_G32", PAIRS[0][0])


def test_long_names_and_many_tensors_have_room(tmp_path: Path) -> None:
    pairs = [(f"blk.{i}.{'x' * 150}.weight", "INT8_ROW") for i in range(40)]
    for tensor, form in pairs:
        (tmp_path / f"{tensor}.{form}").write_bytes(b"ab")
    keep_codes(tmp_path / "codes", tmp_path, pairs)
    codes = KeptCodes(tmp_path / "codes", digest(tmp_path / "codes"))
    assert all(codes.packed(*pair).tobytes() == b"ab" for pair in pairs)


def test_codes_that_are_gone_are_refused(levels: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        keep_codes(tmp_path / "codes", levels, [PAIRS[0], ("gone.weight", "INT3_G32")])
    sentence(caught.value, levels, "gone.weight.INT3_G32", "--out")
    assert not (tmp_path / "codes").exists()


def test_a_place_that_cannot_be_written_is_refused(levels: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        keep_codes(tmp_path / "file" / "codes", levels, [PAIRS[0]])
    sentence(caught.value, tmp_path / "file" / "codes")
    assert not leftovers(tmp_path)


def test_a_file_that_is_gone_or_changed_or_none_is_refused(levels: Path, tmp_path: Path) -> None:
    path = tmp_path / "codes"
    with pytest.raises(PlanError, match="is not there"):
        KeptCodes(path, "0")
    keep_codes(path, levels, [PAIRS[0]])
    kept = digest(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PlanError, match="has changed"):
        KeptCodes(path, kept)
    path.write_text("no codes", encoding="utf-8")
    with pytest.raises(PlanError, match="does not hold them"):
        KeptCodes(path, digest(path))
