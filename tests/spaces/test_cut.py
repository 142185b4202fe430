"""Tensors cut into experts and into channels: nothing is lost, nothing twice."""

from hypothesis import given
from hypothesis import strategies as st

from bitwright.engines import NATIVE, NATIVE_CHANNELS
from bitwright.spaces import PRUNE, Tensor, channel_ranges, discover, expert_of, part_of, role


@given(n_channels=st.integers(1, 20_000))
def test_parts_cover_all_channels_in_whole_groups(n_channels: int) -> None:
    ranges = channel_ranges(n_channels)
    assert [channel for start, stop in ranges for channel in (start, stop)] == sorted(channel for pair in ranges for channel in pair)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == n_channels
    assert all(ranges[i][1] == ranges[i + 1][0] for i in range(len(ranges) - 1))
    assert all(start < stop and start % 32 == 0 for start, stop in ranges)
    assert len(ranges) == min(4, max(1, n_channels // 32))


def test_wide_parts_are_even() -> None:
    assert channel_ranges(1536) == ((0, 384), (384, 768), (768, 1152), (1152, 1536))
    assert channel_ranges(172) == ((0, 32), (32, 64), (64, 128), (128, 172))


def test_a_stack_is_cut_into_experts_and_they_into_channels() -> None:
    down = Tensor("blk.3.ffn_down_exps.weight", (2, 8, 64), "BF16")
    assert [part.tensor.name for part in NATIVE.cut(down)] == ["blk.3.ffn_down_exps.0.weight", "blk.3.ffn_down_exps.1.weight"]
    parts = NATIVE_CHANNELS.cut(down)
    assert [(part.expert, part.rows, part.columns) for part in parts] == [(e, (0, 8), pair) for e in (0, 1) for pair in ((0, 32), (32, 64))]
    names = [part.tensor.name for part in parts]
    assert names[3] == "blk.3.ffn_down_exps.1.part.1.weight"
    assert [(role(name), *expert_of(name), part_of(name)) for name in names[2:]] == [("ffn_down_exps", 3, 1, 0), ("ffn_down_exps", 3, 1, 1)]


def test_only_feed_forward_parts_are_cut_and_pruned() -> None:
    tensors = [Tensor(f"blk.0.{name}.weight", (64, 64), "F32") for name in ("attn_q", "ffn_gate", "ffn_up", "ffn_down_shexp", "ffn_up_shexp")]
    assert NATIVE_CHANNELS.cut(tensors[0]) == ()
    parts = [part.tensor for tensor in tensors for part in NATIVE_CHANNELS.cut(tensor)]
    space = NATIVE_CHANNELS.space(discover([tensors[0], *parts]), menu=("INT4_G32", "PRUNE"), fixed_bytes=0, n_weights=1)
    column = space.formats.index(PRUNE)
    assert {unit.name: bool(space.offered[u, column]) for u, unit in enumerate(space.units)} == {
        "blk.0.attn_q": False,
        "blk.0.ffn.part.0": True,
        "blk.0.ffn.part.1": True,
        "blk.0.ffn_shexp.part.0": True,
        "blk.0.ffn_shexp.part.1": True,
    }
    assert not space.size_bits[:, column].any()
    unnamed = NATIVE_CHANNELS.space(discover(parts), menu=(), fixed_bytes=0, n_weights=1)
    assert not unnamed.offered[:, column].any()
