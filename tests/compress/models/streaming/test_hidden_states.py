import errno
import os
from pathlib import Path

import pytest
import torch

from bitwright.compress.models.streaming.hidden_states import HiddenStates
from bitwright.errors import OutputError
from tests.sentences import sentence

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound_bytes", [0, 100, 1 << 20])
def test_states_come_back_as_they_were(dtype: torch.dtype, bound_bytes: int, tmp_path: Path) -> None:
    hidden = HiddenStates(tmp_path, bound_bytes)
    states = [torch.randn((2, i + 1, 5)).to(dtype) for i in range(4)]
    for _ in range(2):  # the second time in the places that the first has left
        kept = [hidden.keep(each.clone()) for each in states]
        for one, each in reversed([*zip(kept, states, strict=True)]):
            assert torch.equal(hidden.take(one, CPU), each)


def test_states_that_others_refer_to_lose_their_memory_and_get_it_back(tmp_path: Path) -> None:
    hidden, states = HiddenStates(tmp_path, 0), torch.randn((3, 4, 8))
    before, alias = states.clone(), states.view(12, 8)
    kept = hidden.put_away(states)
    assert kept is not None
    assert states.untyped_storage().nbytes() == 0
    hidden.bring_back(kept, states)
    assert torch.equal(states, before)
    assert torch.equal(alias, before.view(12, 8))


def test_part_of_other_memory_stays(tmp_path: Path) -> None:
    whole = torch.randn((4, 8))
    assert HiddenStates(tmp_path, 0).put_away(whole[1:]) is None


def test_files_have_no_name(tmp_path: Path) -> None:
    HiddenStates(tmp_path / "deep", 0).keep(torch.ones(5))
    assert [*(tmp_path / "deep").iterdir()] == []


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError) as raised:
        HiddenStates(tmp_path, 0).keep(torch.ones(5))
    assert "No space left" in sentence(raised.value)
