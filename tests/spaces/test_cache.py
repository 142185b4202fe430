from dataclasses import replace

import numpy as np
import pytest

from bitwright.engines import LLAMA_CPP
from bitwright.errors import UserError
from bitwright.spaces import (
    ANY_CACHE,
    DEFAULT_CACHE,
    CacheTypes,
    Space,
    Tensor,
    cache_mask,
    cache_types,
    chosen_cache,
    discover,
    file_bytes,
    finest_cache_types,
    has_cache,
    weight_space,
    with_cache,
    with_cache_choice,
    with_cache_sizes,
    without_cache,
)
from bitwright.spaces.cache import CACHE_MENU
from tests.sentences import sentence


@pytest.fixture
def weights() -> Space:
    tensors = [Tensor("blk.0.attn_q.weight", (64, 64), "F16"), Tensor("blk.0.ffn_up.weight", (96, 64), "F16")]
    return LLAMA_CPP.space(discover(tensors), menu=("Q8_0", "Q4_0"), fixed_bytes=100, n_weights=64 * 160)


def offered(space: Space, unit: int) -> list[str]:
    return [form.name for form, is_offered in zip(space.formats, space.offered[unit], strict=True) if is_offered]


def test_types_are_read_as_people_write_them() -> None:
    assert cache_types("q8_0") == CacheTypes("Q8_0", "Q8_0")
    assert cache_types("q8_0, q4_0") == CacheTypes("Q8_0", "Q4_0")
    assert cache_types("") == cache_types("f16") == DEFAULT_CACHE
    assert cache_types("Any") == ANY_CACHE
    for types in (CacheTypes("Q8_0", "Q4_0"), DEFAULT_CACHE, ANY_CACHE):
        assert cache_types(str(types)) == types
    for text, values in (("q8_0,q4_0,f16", ("3",)), ("q9_0", ("Q9_0",)), ("any,f16", ("ANY",)), ("q6_k", ("Q6_K", "F16"))):
        with pytest.raises(UserError) as refused:
            cache_types(text)
        sentence(refused.value, *values)


def test_keys_and_values_are_two_units_that_take_nothing_of_a_file(weights: Space) -> None:
    space = with_cache(weights, ANY_CACHE, keys=(4, 64), values=(4, 64))
    assert [unit.name for unit in space.units[-2:]] == ["cache.k", "cache.v"]
    assert offered(space, -1) == offered(space, -2) == list(CACHE_MENU)
    assert has_cache(space)
    assert not has_cache(weights)
    for types in (DEFAULT_CACHE, CacheTypes("Q8_0", "IQ4_NL")):
        choice = with_cache_choice(space, weights.smallest(), types)
        assert space.total_bytes(choice) == file_bytes(space, choice) == weights.total_bytes(weights.smallest())
        assert chosen_cache(space, choice) == types
        assert (without_cache(space, choice) == weights.smallest()).all()
    alone = weight_space(space)
    assert alone.units == weights.units
    assert (alone.size_bits == weights.size_bits).all()
    assert (with_cache_choice(weights, weights.smallest(), CacheTypes("Q8_0")) == weights.smallest()).all()
    assert chosen_cache(weights, weights.smallest()) == DEFAULT_CACHE


def test_a_head_that_no_block_divides_keeps_what_it_has(weights: Space) -> None:
    space = with_cache(weights, ANY_CACHE, keys=(4, 8), values=(4, 96))
    assert offered(space, -2) == ["F16"]
    assert offered(space, -1) == list(CACHE_MENU)
    with pytest.raises(UserError) as refused:
        with_cache(weights, CacheTypes("F16", "Q8_0"), keys=(4, 64), values=(4, 8))
    sentence(refused.value, "Q8_0", "8 numbers", "F16")


def test_a_memory_gives_the_cache_its_size(weights: Space) -> None:
    space = with_cache(weights, ANY_CACHE, keys=(4, 64), values=(4, 64))
    served = with_cache_sizes(space, {"F16": (2000, 2000), "Q8_0": (1063, 1064)})
    choice = with_cache_choice(served, weights.smallest(), CacheTypes("Q8_0", "F16"))
    assert served.total_bytes(choice) == file_bytes(served, choice) + 1063 + 2000
    assert with_cache_sizes(weights, {"F16": (1, 1)}) is weights


def test_the_finest_types_are_plain_where_they_are_offered(weights: Space) -> None:
    space = with_cache(weights, ANY_CACHE, keys=(4, 64), values=(4, 64))
    assert finest_cache_types(space) == DEFAULT_CACHE
    fixed = with_cache(weights, CacheTypes("Q5_0", "Q4_1"), keys=(4, 64), values=(4, 64))
    assert finest_cache_types(fixed) == CacheTypes("Q5_0", "Q4_1")
    narrow = replace(space, offered=space.offered & cache_mask(space, CacheTypes("Q8_0", "Q4_0")))
    assert offered(narrow, -2) == ["Q8_0"]
    assert offered(narrow, 0) == offered(space, 0)
    assert np.array_equal(narrow.offered[:-2], weights.offered)
