import numpy as np
import pytest

from bitwright.objectives import Routing, active_bytes
from bitwright.spaces import DROP, NATIVE, Space, Tensor, by_expert, discover, joined

N_CHOSEN = np.array([60, 30, 10])


def space() -> Space:
    names = ["blk.0.attn_q.weight", *(f"blk.0.ffn_{kind}_exps.{expert}.weight" for expert in range(3) for kind in ("up", "down"))]
    units = joined(discover([Tensor(name, (8, 64), "F32") for name in names]), by_expert)
    return NATIVE.space(units, menu=("INT4_ROW", "INT8_ROW", "DROP"), fixed_bytes=1000, n_weights=7 * 512)


def routing(n_at_once: int) -> Routing:
    zeros = np.zeros(3)
    return Routing(np.zeros(3, dtype=np.int64), np.arange(3), np.full(3, 100 // n_at_once), np.full(3, n_at_once), N_CHOSEN, zeros, zeros)


@pytest.mark.parametrize("n_at_once", [1, 2])
def test_experts_are_read_as_often_as_they_are_chosen(n_at_once: int) -> None:
    made = space()
    of_matrix = NATIVE.format("INT4_ROW").size_bytes((8, 64))
    choice = made.uniform(NATIVE.format("INT4_ROW"))
    assert active_bytes(made, choice, routing(n_at_once)) == pytest.approx(1000 + of_matrix + n_at_once * 2 * of_matrix)


def test_those_that_are_left_share_the_choices_of_a_dropped_one() -> None:
    made = space()
    of_matrix = NATIVE.format("INT4_ROW").size_bytes((8, 64))
    choice = made.uniform(NATIVE.format("INT4_ROW"))
    choice[1], choice[3] = made.formats.index(DROP), made.formats.index(NATIVE.format("INT8_ROW"))
    expected = 1000 + of_matrix + 0.75 * 2 * of_matrix + 0.25 * 2 * NATIVE.format("INT8_ROW").size_bytes((8, 64))
    assert active_bytes(made, choice, routing(1)) == pytest.approx(expected)
