import pytest

from bitwright.report.numerals import duration, megabytes, significant, size, unbroken, with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0312, 0.0011, "0.0312 ± 0.0011"),
        (0.00223456, 0.0000781, "0.002235 ± 0.000078"),
        (12.3456, 0.5, "12.35 ± 0.50"),
        (123.456, 23.0, "123 ± 23"),
        (0.0312, 0.0, "0.0312"),
        (0.0312, float("nan"), "0.0312"),
    ],
)
def test_digits_follow_the_standard_error(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (float("nan"), "–"), (0.1, "0.100"), (1234.5, "1,234"), (2.5e-7, "2.50e-7")])
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_sizes_are_decimal_and_durations_readable() -> None:
    assert (megabytes(89_967_820), megabytes(40_123_456_789)) == ("89.97", "40,123.5")
    assert (size(90_000_000), size(1_500_000_000)) == ("90.00 MB", "1.50 GB")
    assert (duration(59.96), duration(0), duration(3600)) == ("1 min 00 s", "0.0 s", "1 h 00 min")


@pytest.mark.parametrize("text", ["0.031~±~0.001", "90.00~MB", "1.50~GB", "99.8~%", "41.2~s", "12~min 05~s", "3~h 12~min", "60 samples, 4 halves"])
def test_a_number_is_not_parted_from_its_unit(text: str) -> None:
    assert unbroken(text.replace("~", " ")) == text.replace("~", "\N{NO-BREAK SPACE}")
