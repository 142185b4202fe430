import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress.codecs.code_bits import packed_codes, unpacked_codes


@given(bits=st.integers(1, 8), n_codes=st.integers(1, 50), n_spare=st.integers(0, 4), seed=st.integers(0, 99))
@settings(deadline=None)
def test_codes_stand_bit_after_bit_and_come_back(bits: int, n_codes: int, n_spare: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, spare = rng.integers(0, 1 << bits, (3, n_codes), dtype=np.uint8), rng.integers(0, 256, (3, n_spare), dtype=np.uint8)
    highest = np.packbits(np.unpackbits(codes[..., None], axis=2)[..., 8 - bits :].reshape(3, -1), axis=1)
    lowest = np.packbits(np.unpackbits(codes[..., None], axis=2, bitorder="little")[..., :bits].reshape(3, -1), axis=1, bitorder="little")
    for stream, lowest_first in ((highest, False), (lowest, True)):
        rows = torch.from_numpy(np.concatenate([stream, spare], axis=1))
        before = rows.clone()
        assert np.array_equal(unpacked_codes(rows, bits, n_codes, lowest_first=lowest_first).numpy(), codes)
        assert torch.equal(rows, before)
        again = torch.from_numpy(codes.copy())
        assert np.array_equal(packed_codes(again, bits, lowest_first=lowest_first).numpy(), stream)
        assert np.array_equal(again.numpy(), codes)
