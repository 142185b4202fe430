"""Contract tests of storage formats. Inherit from `FormatContract` and name the formats under test:

class TestMine(FormatContract):
    formats = (MY_FORMAT,)
"""

import pytest

from bitwright.spaces import Format

_SHAPES = [(1, 512), (3, 512), (7, 1024), (2, 5, 512), (4, 1)]


class FormatContract:
    """Contract of storage formats: a name, a size that is exact, and a refusal of what does not fit."""

    formats: tuple[Format, ...]

    def test_names_are_unique_and_one_word(self) -> None:
        """Require unique names of one word."""
        names = [form.name for form in self.formats]
        assert len(set(names)) == len(names) > 0
        assert all(name and not set(name) & set(" ,:=*/") for name in names)

    def test_some_matrix_fits(self) -> None:
        """Require a matrix that the format can store."""
        for form in self.formats:
            assert form.fits((4, 1024)), form.name

    @pytest.mark.parametrize("shape", _SHAPES, ids=str)
    def test_a_size_is_a_whole_number_of_bytes_or_refused(self, shape: tuple[int, ...]) -> None:
        """Require a size of a whole number of bytes for shapes that fit, and a `ValueError` for the others."""
        for form in self.formats:
            if form.fits(shape):
                size_bytes = form.size_bytes(shape)
                assert type(size_bytes) is int, form.name
                assert size_bytes > 0, form.name
            else:
                with pytest.raises(ValueError, match=form.name):
                    form.size_bytes(shape)

    def test_rows_are_stored_one_by_one(self) -> None:
        """Require the size of a matrix to be that of its rows added up."""
        for form in self.formats:
            one, many = form.size_bytes((1, 1024)), form.size_bytes((12, 1024))
            stacked = form.size_bytes((3, 4, 1024))
            assert many == stacked == 12 * one, form.name

    def test_bits_per_weight_are_those_of_a_long_row(self) -> None:
        """Require `bits_per_weight` to be the size of a long row over its weights."""
        for form in self.formats:
            n_weights = 1 << 20
            assert form.fits((1, n_weights)), form.name
            assert 8 * form.size_bytes((1, n_weights)) / n_weights == pytest.approx(form.bits_per_weight, rel=1e-3), form.name
