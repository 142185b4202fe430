import random
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import pin_weights, read_pinned_weights
from bitwright.errors import OutputError, PlanError
from bitwright.written_files import digest
from tests.runs import leftovers
from tests.sentences import sentence

WEIGHTS = {f"blk.{i}.ffn_gate_inp.weight": np.random.default_rng(i).normal(size=(4, 8 + i)).astype(np.float32) for i in range(3)}


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights.safetensors"
    pin_weights(path, WEIGHTS)
    found = read_pinned_weights(path, digest(path))
    assert list(found) == list(WEIGHTS)
    assert all(np.array_equal(found[name], weights) for name, weights in WEIGHTS.items())
    before = path.read_bytes()
    pin_weights(path, WEIGHTS)
    assert path.read_bytes() == before


def test_no_mutation_of_kept_weights_is_a_traceback(tmp_path: Path) -> None:
    """Mutations are refused even if the plan names the digest of the damaged file."""
    path, rng = tmp_path / "weights", random.Random(0)
    pin_weights(path, WEIGHTS)
    whole = path.read_bytes()
    texts = [b'"F32"', b'"BF16"', b"[4]", b"[4,8]", b'"data_offsets"', b"[0,128]", b'"shape"', b"{", b"null", b"1e999", b"-1", b"9" * 30, b"[" * 2000]
    for _ in range(400):
        at, some = rng.randrange(600), rng.choice([*texts, rng.randbytes(4)])
        path.write_bytes(whole[:at] + some + whole[at + rng.choice((len(some), 1)) :])
        try:
            found = read_pinned_weights(path, digest(path))
        except PlanError as error:
            sentence(error, path)
        else:
            assert all(weights.dtype == np.float32 and weights.ndim == 2 for weights in found.values())


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        pin_weights(tmp_path / "file" / "weights", WEIGHTS)
    sentence(caught.value, tmp_path / "file" / "weights")
    assert not leftovers(tmp_path)


def test_a_file_that_is_gone_or_changed_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with pytest.raises(PlanError, match="is not there"):
        read_pinned_weights(path, "0")
    pin_weights(path, WEIGHTS)
    kept = digest(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PlanError, match="has changed"):
        read_pinned_weights(path, kept)
    path.write_text("no weights", encoding="utf-8")
    with pytest.raises(PlanError, match="does not hold them"):
        read_pinned_weights(path, digest(path))
