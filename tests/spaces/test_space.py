"""Spaces against brute force."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import open_source
from bitwright.engines import LLAMA_CPP
from bitwright.spaces import BlockFormat, Choice, Space, Tensor, Unit, discover

FORMATS = (BlockFormat("A", 1, 4), BlockFormat("B", 1, 2), BlockFormat("C", 32, 34), BlockFormat("D", 32, 20), BlockFormat("E", 256, 110))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Units of one to three tensors, any pairs offered, and a size for each pair that need not follow the bits per weight."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, len(FORMATS)))
    cells = shape[0] * shape[1]
    size_bits = np.array(draw(st.lists(st.integers(0, 50), min_size=cells, max_size=cells)), dtype=np.int64).reshape(shape)
    offered = np.array(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).reshape(shape)
    offered[np.arange(shape[0]), draw(st.lists(st.integers(0, shape[1] - 1), min_size=shape[0], max_size=shape[0]))] = True
    ties = draw(st.lists(st.integers(1, 3), min_size=shape[0], max_size=shape[0]))
    units = tuple(Unit(f"u{u}", u, "k", tuple(Tensor(f"u{u}.{t}", (2, 256), "A") for t in range(ties[u]))) for u in range(shape[0]))
    return Space(units, FORMATS[: shape[1]], size_bits, offered, draw(st.integers(0, 99)), 1000)


def any_choice(space: Space, data: st.DataObject) -> Choice:
    return np.array([data.draw(st.sampled_from(np.flatnonzero(row).tolist())) for row in space.offered], dtype=np.int64)


@given(space=spaces(), data=st.data())
def test_names_and_choice_are_inverse(space: Space, data: st.DataObject) -> None:
    choice = any_choice(space, data)
    names = space.names(choice)
    assert set(names) == {tensor.name for unit in space.units for tensor in unit.tensors}
    assert space.choice(names).tolist() == choice.tolist()
    assert space.choice(names | {"another.weight": "nonsense"}).dtype == np.int64


@given(space=spaces(), data=st.data())
def test_ties_are_never_split(space: Space, data: st.DataObject) -> None:
    choice = any_choice(space, data)
    names = space.names(choice)
    for unit, index in zip(space.units, choice, strict=True):
        assert {names[tensor.name] for tensor in unit.tensors} == {space.formats[index].name}
        for tensor in unit.tensors if len(unit.tensors) > 1 and len(space.formats) > 1 else ():
            other = next(form.name for form in space.formats if form.name != names[tensor.name])
            with pytest.raises(KeyError, match=unit.name):
                space.choice(names | {tensor.name: other})


@given(space=spaces(), data=st.data())
def test_what_is_not_offered_or_missing_or_unknown_is_no_choice(space: Space, data: st.DataObject) -> None:
    names = space.names(any_choice(space, data))
    for unit, row in zip(space.units, space.offered, strict=True):
        tied = [tensor.name for tensor in unit.tensors]
        for form in (space.formats[f] for f in np.flatnonzero(~row)):
            with pytest.raises(KeyError, match=unit.name):
                space.choice(names | dict.fromkeys(tied, form.name))
        with pytest.raises(KeyError, match="nonsense"):
            space.choice(names | dict.fromkeys(tied, "nonsense"))
        for name in tied:
            with pytest.raises(KeyError, match=name):
                space.choice({other: form for other, form in names.items() if other != name})


@given(space=spaces(), data=st.data())
def test_totals_are_sums(space: Space, data: st.DataObject) -> None:
    choices = np.array([[any_choice(space, data) for _ in range(2)] for _ in range(3)])
    totals = space.total_bits(choices)
    assert totals.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        by_hand = space.fixed_bits + sum(int(space.size_bits[u, f]) for u, f in enumerate(choices[i, j]))
        assert totals[i, j] == by_hand
        assert space.total_bytes(choices[i, j]) == by_hand // 8
        assert space.bits_per_weight(choices[i, j]) == by_hand / 1000


@given(space=spaces())
def test_the_largest_is_the_largest(space: Space) -> None:
    for u, f in enumerate(space.largest()):
        assert space.offered[u, f]
        assert space.size_bits[u, f] == space.size_bits[u, space.offered[u]].max()


@given(space=spaces())
def test_the_smallest_is_the_smallest(space: Space) -> None:
    smallest = space.smallest()
    for u, f in enumerate(smallest):
        assert space.offered[u, f]
        assert space.size_bits[u, f] == space.size_bits[u][space.offered[u]].min()


@pytest.mark.slow
@given(space=spaces())
@settings(max_examples=80)
def test_uniform_is_the_format_or_the_next_finer(space: Space) -> None:
    for f, form in enumerate(space.formats):
        for u, chosen in enumerate(space.uniform(form)):
            pairs = [(space.formats[g].bits_per_weight, int(space.size_bits[u, g]), g) for g in np.flatnonzero(space.offered[u])]
            enough = [(size, g) for bits, size, g in pairs if bits >= form.bits_per_weight]
            finest = [(size, g) for bits, size, g in pairs if bits == max(pairs)[0]]
            assert chosen == (f if space.offered[u, f] else min(enough or finest)[1])


def test_uniform_in_a_model_where_the_format_does_not_fit(llama_96: Path) -> None:
    space = LLAMA_CPP.space(discover(open_source(str(llama_96)).tensors), menu=(), fixed_bytes=0, n_weights=1)
    assert set(space.names(space.uniform(LLAMA_CPP.format("Q4_K"))).values()) == {"Q4_0"}
    assert set(space.names(space.uniform(LLAMA_CPP.format("Q6_K"))).values()) == {"Q8_0"}
    assert set(space.names(space.uniform(LLAMA_CPP.format("Q5_1"))).values()) == {"Q5_1"}


def test_a_format_of_another_space_is_refused() -> None:
    space = Space((Unit("u", 0, "k", ()),), FORMATS[:1], np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_), 0, 1)
    with pytest.raises(ValueError, match="not in tuple"):
        space.uniform(FORMATS[1])


@given(space=spaces(), data=st.data())
def test_narrowing_only_takes_away(space: Space, data: st.DataObject) -> None:
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=space.offered.size, max_size=space.offered.size))).reshape(space.offered.shape)
    if (space.offered & wanted).any(axis=1).all():
        narrow = space.narrowed(wanted)
        assert (narrow.offered == (space.offered & wanted)).all()
        assert (narrow.size_bits is space.size_bits, narrow.fixed_bits) == (True, space.fixed_bits)
    else:
        empty = next(unit.name for unit, row in zip(space.units, space.offered & wanted, strict=True) if not row.any())
        with pytest.raises(ValueError, match=f"no format is left for {empty}"):
            space.narrowed(wanted)


@pytest.mark.parametrize("wrong", [(2, 1), (1, 3), (1,)])
def test_tables_of_another_shape_are_refused(wrong: tuple[int, ...]) -> None:
    unit, right = Unit("u", 0, "k", ()), (1, 2)
    with pytest.raises(ValueError, match=r"a space of \(1, 2\) pairs cannot have tables of shape"):
        Space((unit,), FORMATS[:2], np.zeros(wrong, np.int64), np.ones(right, np.bool_), 0, 1)
    with pytest.raises(ValueError, match=r"a space of \(1, 2\) pairs cannot have tables of shape"):
        Space((unit,), FORMATS[:2], np.zeros(right, np.int64), np.ones(wrong, np.bool_), 0, 1)


def test_large_models_do_not_overflow() -> None:
    shape = (10**6, 2**20)  # 10¹² weights
    unit = Unit("u", 0, "k", (Tensor("u.weight", shape, "F32"),))
    space = LLAMA_CPP.space((unit, unit), menu=("F32",), fixed_bytes=2**40, n_weights=2 * unit.n_weights)
    assert space.total_bytes(space.smallest()) == 8 * 10**6 * 2**20 + 2**40
