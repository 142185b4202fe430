import random
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Bytes, PinnedCodes, pin_codes
from bitwright.compress.codecs.packed_file import write_packed
from bitwright.errors import OutputError, PlanError, RunError
from bitwright.written_files import digest
from tests.runs import leftovers
from tests.sentences import sentence

PAIRS = [("blk.0.attn_q.weight", "INT3_G32"), ("a" * 300, "INT4_ROW"), ("blk.0.ffn_up.7.weight", "INT2_G64")]


def codes_of(i: int) -> Bytes:
    return np.arange(7 * i + 1, dtype=np.uint8)


@pytest.fixture
def levels(tmp_path: Path) -> Path:
    folder = tmp_path / "levels"
    folder.mkdir()
    for i, (tensor, form) in enumerate(PAIRS[:1] + PAIRS[2:]):
        write_packed(folder / f"{tensor}.{form}", codes_of(i), key=f"{tensor}.{form}")
    return folder


def test_what_was_kept_is_read_back(levels: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "codes.safetensors"
    pin_codes(path, levels, [PAIRS[0], PAIRS[2]])
    codes = PinnedCodes(path, digest(path))
    for i, pair in enumerate((PAIRS[0], PAIRS[2])):
        assert np.array_equal(codes.packed(*pair), codes_of(i))
    before = path.read_bytes()
    pin_codes(path, levels, [PAIRS[0], PAIRS[2]])
    assert path.read_bytes() == before
    with pytest.raises(PlanError) as caught:
        codes.packed(PAIRS[0][0], "INT4_G32")
    sentence(caught.value, "INT4_G32", PAIRS[0][0])


def test_long_names_and_many_tensors_have_room(tmp_path: Path) -> None:
    pairs = [(f"blk.{i}.{'x' * 150}.weight", "INT8_ROW") for i in range(40)]
    for tensor, form in pairs:
        write_packed(tmp_path / f"{tensor}.{form}", np.frombuffer(b"ab", dtype=np.uint8), key=f"{tensor}.{form}")
    pin_codes(tmp_path / "codes", tmp_path, pairs)
    codes = PinnedCodes(tmp_path / "codes", digest(tmp_path / "codes"))
    assert all(codes.packed(*pair).tobytes() == b"ab" for pair in pairs)


def test_codes_that_are_gone_are_refused(levels: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        pin_codes(tmp_path / "codes", levels, [PAIRS[0], ("gone.weight", "INT3_G32")])
    sentence(caught.value, levels, "gone.weight.INT3_G32", "--out")
    assert not (tmp_path / "codes").exists()


def test_codes_that_were_changed_are_refused(levels: Path, tmp_path: Path) -> None:
    level = levels / ".".join(PAIRS[2])
    level.write_bytes(bytes([level.read_bytes()[0] ^ 1]) + level.read_bytes()[1:])
    with pytest.raises(RunError) as caught:
        pin_codes(tmp_path / "codes", levels, [PAIRS[0], PAIRS[2]])
    sentence(caught.value, level.name, "cannot be reproduced")


def test_no_mutation_of_kept_codes_is_a_traceback(levels: Path, tmp_path: Path) -> None:
    """Mutations are refused even if the plan names the digest of the damaged file."""
    path, rng = tmp_path / "codes", random.Random(0)
    pin_codes(path, levels, [PAIRS[0], PAIRS[2]])
    whole = path.read_bytes()
    texts = [b'"U8"', b"[1]", b'"data_offsets"', b"[0,1]", b'"shape"', b"{", b"null", b"1e999", b"-1", b"9" * 30, b"[" * 2000]
    for _ in range(400):
        at = rng.randrange(len(whole) - 30)
        some = rng.choice([*texts, rng.randbytes(4)])
        path.write_bytes(whole[:at] + some + whole[at + rng.choice((len(some), 1)) :])
        try:
            codes = PinnedCodes(path, digest(path))
            found = [codes.packed(*pair) for pair in (PAIRS[0], PAIRS[2])]
        except PlanError as error:
            sentence(error, path if "among them" not in str(error) else "among them")
        else:
            assert all(code.dtype == np.uint8 and code.ndim == 1 for code in found)


def test_a_place_that_cannot_be_written_is_refused(levels: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        pin_codes(tmp_path / "file" / "codes", levels, [PAIRS[0]])
    sentence(caught.value, tmp_path / "file" / "codes")
    assert not leftovers(tmp_path)


def test_a_file_that_is_gone_or_changed_or_none_is_refused(levels: Path, tmp_path: Path) -> None:
    path = tmp_path / "codes"
    with pytest.raises(PlanError, match="is not there"):
        PinnedCodes(path, "0")
    pin_codes(path, levels, [PAIRS[0]])
    kept = digest(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PlanError, match="has changed"):
        PinnedCodes(path, kept)
    path.write_text("no codes", encoding="utf-8")
    with pytest.raises(PlanError, match="does not hold them"):
        PinnedCodes(path, digest(path))
