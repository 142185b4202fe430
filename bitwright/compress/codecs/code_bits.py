"""Bit packing of codes of 1 to 8 bits, in torch, on any device.

Every 8 / gcd(8, bits) codes end on a byte boundary. Such a period is loaded into one integer word with a byte per code. To unpack, the word is split
in halves until each code has its byte, the earlier half in the lower bytes (words are little-endian). To pack, the halves are joined again. All
periods are processed at once, so that it takes a few vectorised steps on words instead of a few per code.

The first code of a byte is in its highest bits, or in its lowest with `lowest_first`; a code that spans two bytes is split in the same order.
"""

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor as Torch
from torch.nn.functional import pad

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # codes of a period -> integer type with a byte for each


def unpacked_codes(packed: Torch, bits: int, n_codes: int, *, lowest_first: bool = False) -> Torch:
    """Unpack codes `(n, n_codes)`, uint8, of 1 to 8 bits each, from bytes `(n, ⌈n_codes · bits / 8⌉)`; more bytes than needed are ignored."""
    if bits == 8:
        return packed[:, :n_codes]
    period = 8 // gcd(8, bits)
    n_periods, width = -(-n_codes // period), bits * period // 8
    packed = pad(packed, (0, n_periods * width - packed.shape[1])).reshape(len(packed), n_periods, width)
    first, *others = _from_the_highest(width, lowest_first)
    words = packed[..., first].to(_WORDS[period], memory_format=torch.contiguous_format)
    for byte in others:
        words = words.bitwise_left_shift_(8).bitwise_or_(packed[..., byte])
    n = period  # codes per lane
    while n > 1:
        n //= 2
        lane = _mask(n * bits, period=period, every=2 * n)
        low, high = words.bitwise_and(lane), words.bitwise_right_shift_(n * bits).bitwise_and_(lane)
        earlier, later = (low, high) if lowest_first else (high, low)
        words = later.bitwise_left_shift_(8 * n).bitwise_or_(earlier)
    return words.view(torch.uint8).view(len(packed), -1)[:, :n_codes]


def packed_codes(codes: Torch, bits: int, *, lowest_first: bool = False) -> Torch:
    """Pack codes `(n, n_codes)`, uint8, of 1 to 8 bits each, into bytes `(n, ⌈n_codes · bits / 8⌉)`; unused bits are zero."""
    if bits == 8:
        return codes
    n_codes, period = codes.shape[1], 8 // gcd(8, bits)
    n_periods, width = -(-n_codes // period), bits * period // 8
    words = pad(codes, (0, n_periods * period - n_codes)).contiguous().view(_WORDS[period])
    n = 1
    while n < period:
        lane = _mask(n * bits, period=period, every=2 * n)
        earlier, later = words.bitwise_and(lane), words.bitwise_right_shift(8 * n).bitwise_and_(lane)
        low, high = (earlier, later) if lowest_first else (later, earlier)
        words = high.bitwise_left_shift_(n * bits).bitwise_or_(low)
        n *= 2
    found = codes.new_empty((len(codes), n_periods, width))
    for place, byte in enumerate(reversed(_from_the_highest(width, lowest_first))):
        found[..., byte] = words.bitwise_right_shift(8 * place).bitwise_and_(0xFF)
    return found.view(len(codes), -1)[:, : -(-n_codes * bits // 8)]


def _from_the_highest(width: int, lowest_first: bool) -> Sequence[int]:
    """Return the indices of the `width` bytes of a period, from the most significant to the least."""
    return range(width - 1, -1, -1) if lowest_first else range(width)


def _mask(n_bits: int, *, period: int, every: int) -> int:
    """Return a mask of the lowest `n_bits` of every `every` bytes of a word of `period` bytes."""
    return sum((1 << n_bits) - 1 << 8 * start for start in range(0, period, every))
