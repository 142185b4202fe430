"""Contract tests of formats and targets. Inherit and name the target under test:

class TestMine(TargetContract):
    target = MY_ENGINE
    row_size = staticmethod(my_engine_row_size)
    refuses_without_importance = staticmethod(my_engine_needs_an_imatrix)
"""

from collections.abc import Callable
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.spaces import Target, Tensor, Unit
from tests.sentences import sentence

_inherited = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)


@st.composite
def units(draw: st.DrawFn, block: int = 32) -> tuple[Unit, ...]:
    """Units of one to three tensors of two or three dimensions, with rows of odd and of blockable lengths."""
    rows = st.integers(1, 6) | st.integers(1, 6).map(lambda n: n * block) | st.integers(1, 3).map(lambda n: n * 256)
    leading = st.lists(st.integers(1, 5), min_size=1, max_size=2)
    found = []
    for u in range(draw(st.integers(1, 5))):
        shapes = [(*draw(leading), draw(rows)) for _ in range(draw(st.integers(1, 3)))]
        found.append(Unit(f"u{u}", u, "kind", tuple(Tensor(f"u{u}.{t}", shape, "F32") for t, shape in enumerate(shapes))))
    return tuple(found)


class TargetContract:
    """The promises of a target and of its formats, held against the engine's own arithmetic."""

    target: Target
    row_size: Callable[[str, int], int]
    refuses_without_importance: Callable[[str], bool]

    def test_names_are_unique(self) -> None:
        assert len({form.name for form in self.target.formats}) == len(self.target.formats)

    def test_formats_go_from_the_finest_to_the_coarsest(self) -> None:
        widths = [form.bits_per_weight for form in self.target.formats]
        assert all(fine >= coarse > 0 for fine, coarse in pairwise(widths))

    def test_some_format_fits_every_row(self) -> None:
        assert any(form.block == 1 for form in self.target.formats)

    @given(leading=st.lists(st.integers(1, 9), min_size=0, max_size=3), blocks=st.integers(1, 20))
    @_inherited
    def test_sizes_are_the_engines(self, leading: list[int], blocks: int) -> None:
        for form in self.target.formats:
            shape = (*leading, blocks * form.block)
            assert form.fits(shape)
            assert form.size_bytes(shape) == prod(leading) * self.row_size(form.name, shape[-1])
            assert 8 * form.size_bytes(shape) == pytest.approx(form.bits_per_weight * prod(shape))

    @given(rows=st.integers(1, 9), columns=st.integers(1, 1000))
    @_inherited
    def test_a_row_of_broken_blocks_has_no_size(self, rows: int, columns: int) -> None:
        for form in self.target.formats:
            if columns % form.block:
                assert not form.fits((rows, columns))
                with pytest.raises(ValueError, match=f"{form.name} stores blocks of {form.block} weights.* a row of {columns}"):
                    form.size_bytes((rows, columns))

    def test_needs_importance_where_the_engine_does(self) -> None:
        for form in self.target.formats:
            assert form.needs_importance or not self.refuses_without_importance(form.name), form.name

    def test_formats_are_found_by_name(self) -> None:
        assert all(self.target.format(form.name) is form for form in self.target.formats)

    def test_an_unknown_name_is_refused(self) -> None:
        name = f"{self.target.formats[-1].name}_X"
        with pytest.raises(UserError) as caught:
            self.target.format(name)
        sentence(caught.value, self.target.name, name, self.target.formats[-1].name)

    @given(rows=st.integers(1, 9), blocks=st.integers(1, 9))
    @_inherited
    def test_padding_is_up_to_the_next_multiple(self, rows: int, blocks: int) -> None:
        for form in self.target.formats:
            shape = (rows, blocks * form.block)
            stored = self.target.stored_bytes(shape, form)
            assert stored % self.target.alignment == 0
            assert form.size_bytes(shape) <= stored < form.size_bytes(shape) + self.target.alignment

    @given(units=units())
    @_inherited
    def test_a_pair_is_offered_where_every_tensor_fits(self, units: tuple[Unit, ...]) -> None:
        space = self.target.space(units, menu=(), fixed_bytes=0, n_weights=1)
        assert space.units == units
        assert space.formats == self.target.formats
        for unit, row in zip(units, space.offered, strict=True):
            fitting = [all(tensor.shape[-1] % form.block == 0 for tensor in unit.tensors) for form in self.target.formats]
            assert row.tolist() == fitting

    @given(units=units(), fixed_bytes=st.integers(0, 10**12), data=st.data())
    @_inherited
    def test_a_choice_costs_its_tensors_and_the_fixed_bytes(self, units: tuple[Unit, ...], fixed_bytes: int, data: st.DataObject) -> None:
        space = self.target.space(units, menu=(), fixed_bytes=fixed_bytes, n_weights=sum(unit.n_weights for unit in units))
        choice = np.array([data.draw(st.sampled_from(np.flatnonzero(row).tolist())) for row in space.offered])
        expected = fixed_bytes
        for unit, f in zip(units, choice, strict=True):
            expected += sum(self.target.stored_bytes(tensor.shape, self.target.formats[f]) for tensor in unit.tensors)
        assert space.total_bytes(choice) == expected
        assert space.bits_per_weight(choice) == pytest.approx(8 * expected / space.n_weights)

    @given(units=units(), data=st.data())
    @_inherited
    def test_a_menu_narrows_each_unit_that_it_can(self, units: tuple[Unit, ...], data: st.DataObject) -> None:
        menu = data.draw(st.sets(st.sampled_from([form.name for form in self.target.formats]), min_size=1))
        whole = self.target.space(units, menu=(), fixed_bytes=0, n_weights=1).offered
        named = np.array([form.name in menu for form in self.target.formats])
        for full, narrow in zip(whole, self.target.space(units, menu=menu, fixed_bytes=0, n_weights=1).offered, strict=True):
            assert narrow.tolist() == ((full & named) if (full & named).any() else full).tolist()

    @given(units=units())
    @_inherited
    def test_a_menu_with_an_unknown_name_is_refused(self, units: tuple[Unit, ...]) -> None:
        with pytest.raises(UserError, match="no format 'nonsense'"):
            self.target.space(units, menu=(self.target.formats[0].name, "nonsense"), fixed_bytes=0, n_weights=1)
