"""Options that are read into one value."""

import pytest

from bitwright.cli.option_groups import n_bytes, part_bytes
from bitwright.errors import UserError
from tests.sentences import sentence


def test_the_size_of_a_part_is_a_number_of_bytes() -> None:
    assert [part_bytes(text) for text in ("", "2GB", "500MiB")] == [0, 2 * 10**9, 500 * 2**20]
    for text in ("4bpw", "0.1B", "0GB", "2", "none"):
        with pytest.raises(UserError) as refused:
            part_bytes(text)
        sentence(refused.value, "2GB", f"'{text}'")


def test_the_memory_of_a_search_is_a_number_of_bytes() -> None:
    assert [n_bytes(text, "The memory of a search") for text in ("", "3GB")] == [0, 3 * 10**9]
    with pytest.raises(UserError) as refused:
        n_bytes("4bpw", "The memory of a search")
    sentence(refused.value, "The memory of a search", "'4bpw'")
