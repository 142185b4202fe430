from pathlib import Path

import pytest
import torch

from bitwright.compress import MODULE_VIEW, Room, load
from bitwright.compress.models.opening import open_checkpoint
from bitwright.compress.models.streaming.room import footprint, sentence_of, streams, whole_bytes
from bitwright.compress.models.streaming.stations import station_bytes, stations_of
from bitwright.errors import UserError
from tests.sentences import sentence


def test_what_does_not_fit_is_streamed(llama_gqa: Path, tmp_path: Path) -> None:
    whole = whole_bytes(open_checkpoint(str(llama_gqa)).skeleton, Room(tmp_path), dtype=torch.float32)
    fits, does_not = (load(str(llama_gqa), view=MODULE_VIEW, room=Room(tmp_path, n_bytes)) for n_bytes in (whole, whole - 1))
    assert not fits.residence.is_streamed
    assert not fits.notes
    assert does_not.residence.is_streamed
    assert "streamed block by block, since in memory it would take" in does_not.notes[0]


@pytest.mark.parametrize(("left", "text", "expanded"), [(0, 0, 0), (3000, 1500, 1500), (5 << 30, 1 << 30, 1 << 31)])
def test_what_is_kept_beside_a_model_in_memory_stays_within_the_limit(left: int, text: int, expanded: int, llama_gqa: Path, tmp_path: Path) -> None:
    whole = whole_bytes(open_checkpoint(str(llama_gqa)).skeleton, Room(tmp_path), dtype=torch.float32)
    kept = load(str(llama_gqa), view=MODULE_VIEW, room=Room(tmp_path, whole + left)).residence
    assert (kept.room_bytes, kept.expanded_bytes) == (text, expanded)


def test_a_limit_below_two_blocks_names_the_least(llama_gqa: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load(str(llama_gqa), view=MODULE_VIEW, room=Room(tmp_path, 1000))
    assert "at least --search-memory 0.7GB" in sentence(raised.value)
    load(str(llama_gqa), view=MODULE_VIEW, room=Room(tmp_path, 700_000_000, stream=True))


def test_the_least_is_the_largest_neighbours_and_what_lies_outside(llama_gqa: Path) -> None:
    skeleton = open_checkpoint(str(llama_gqa)).skeleton
    stations = stations_of(skeleton)
    assert [station.name for station in stations] == ["model.embed_tokens", "model.layers.0", "model.layers.1", "lm_head"]
    block = sum(parameter.numel() for parameter in skeleton.model.layers[0].parameters())
    embedding = skeleton.model.embed_tokens.weight.numel()
    assert station_bytes(skeleton, stations, width=2) == (2 * (block + max(block, embedding)), 2 * skeleton.model.norm.weight.numel())


def test_the_sentence_says_what_it_costs(llama_gqa: Path, tmp_path: Path) -> None:
    skeleton, room = open_checkpoint(str(llama_gqa)).skeleton, Room(tmp_path, 2_000_000_000, stream=True)
    assert streams(skeleton, room, dtype=torch.float32)
    assert "as asked" in sentence_of(footprint(skeleton, room, dtype=torch.float32), room)
    assert "below 2.00 GB" in sentence_of(footprint(skeleton, room, dtype=torch.float32), room)


def test_a_model_without_a_list_of_blocks_is_named(llama_gqa: Path) -> None:
    skeleton = open_checkpoint(str(llama_gqa)).skeleton
    wide = torch.nn.Linear(4096, 4096, device="meta")
    skeleton.model.add_module("aside", wide)
    try:
        with pytest.raises(UserError) as raised:
            stations_of(skeleton)
        assert "LlamaForCausalLM" in sentence(raised.value)
    finally:
        del skeleton.model.aside
