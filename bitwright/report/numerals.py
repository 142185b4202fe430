"""Format numbers with as many digits as they are accurate to.

>>> with_error(0.031234, 0.00113)
'0.0312 ± 0.0011'
>>> significant(0.0312345), significant(0.0000123)
('0.0312', '1.23e-5')
>>> size(89_967_820), size(40_123_000_000)
('89.97 MB', '40.12 GB')
>>> duration(41.23), duration(725), duration(11_520)
('41.2 s', '12 min 05 s', '3 h 12 min')
"""

import re
from math import floor, isfinite, log10

from bitwright.spaces import Unit


def with_error(value: float, standard_error: float) -> str:
    """Format `value ± standard_error`, both to the second significant digit of the error."""
    if not (isfinite(standard_error) and standard_error > 0):
        return significant(value)
    decimals = max(0, 1 - floor(log10(standard_error)))
    return f"{value:.{decimals}f} ± {standard_error:.{decimals}f}"


def significant(value: float, digits: int = 3) -> str:
    """Format to `digits` significant digits: plain from a ten-thousandth on, in scientific notation below."""
    if value == 0 or not isfinite(value):
        return "0" if value == 0 else "–"
    if abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.{max(0, digits - 1 - floor(log10(abs(value))))}f}"


def megabytes(size_bytes: float) -> str:
    """Format millions of bytes, without the unit."""
    return f"{size_bytes / 1e6:,.2f}" if abs(size_bytes) < 1e9 else f"{size_bytes / 1e6:,.1f}"


def size(size_bytes: float) -> str:
    """Format bytes as MB or GB, decimal as in `90MB`."""
    return f"{size_bytes / 1e9:,.2f} GB" if abs(size_bytes) >= 1e9 else f"{size_bytes / 1e6:,.2f} MB"


def percent(share: float) -> str:
    """Format a share (0 to 1) as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Format seconds as seconds, minutes and seconds, or hours and minutes."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def unbroken(sentence: str) -> str:
    """Put no-break spaces inside `0.031 ± 0.001`, `90.00 MB`, `99.8 %` and `41.2 s`."""
    return re.sub(r"(?<=\d) (?=[±%]|(?:MB|GB|s|min|h)\b)|(?<=±) ", "\N{NO-BREAK SPACE}", sentence)


def shapes(unit: Unit) -> str:
    """Format the different shapes of a unit's tensors, row length last."""
    different = dict.fromkeys(" × ".join(str(length) for length in tensor.shape) for tensor in unit.tensors)
    return ", ".join(different) + (f" ({len(unit.tensors)} tensors)" if len(unit.tensors) > 1 else "")
