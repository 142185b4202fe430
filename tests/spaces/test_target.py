"""llama.cpp as a target, and the spaces that it makes of tiny models."""

from pathlib import Path

import pytest

from bitwright.compress import open_source
from bitwright.compress.models.gguf.libggml import requires_importance, row_size
from bitwright.engines import ENGINES, LLAMA_CPP, NATIVE, target_named
from bitwright.errors import UserError
from bitwright.spaces import DROP, INTEGER_FORMATS, Space, Tensor, Unit, discover
from tests.sentences import sentence
from tests.spaces.contract import TargetContract

K_AND_IQ = {form.name for form in LLAMA_CPP.formats if form.block == 256}


class TestLlamaCpp(TargetContract):
    target = LLAMA_CPP
    row_size = staticmethod(row_size)
    refuses_without_importance = staticmethod(requires_importance)


def space_of(folder: Path, *menu: str) -> Space:
    source = open_source(str(folder))
    return LLAMA_CPP.space(discover(source.tensors), menu=menu, fixed_bytes=1000, n_weights=1)


def offered(space: Space) -> list[set[str]]:
    return [{form.name for form, given in zip(space.formats, row, strict=True) if given} for row in space.offered]


def test_rows_of_256_are_offered_everything(llama_256: Path) -> None:
    assert all(names == {form.name for form in LLAMA_CPP.formats} for names in offered(space_of(llama_256)))


def test_rows_of_96_are_offered_no_block_of_256(llama_96: Path) -> None:
    assert all(names == {form.name for form in LLAMA_CPP.formats} - K_AND_IQ for names in offered(space_of(llama_96)))


def test_a_menu_is_all_that_is_offered(llama_256: Path) -> None:
    assert all(names == {"Q4_K", "Q8_0"} for names in offered(space_of(llama_256, "Q8_0", "Q4_K")))


def test_a_menu_that_fits_nothing_falls_back_to_what_does(llama_96: Path) -> None:
    assert offered(space_of(llama_96, "Q4_K", "IQ2_XXS")) == offered(space_of(llama_96))


def test_a_menu_falls_back_unit_by_unit() -> None:
    units = tuple(Unit(f"u{n}", 0, "kind", (Tensor(f"u{n}.weight", (2, n), "F32"),)) for n in (256, 96))
    space = LLAMA_CPP.space(units, menu=("Q4_K",), fixed_bytes=0, n_weights=1)
    assert offered(space) == [{"Q4_K"}, {form.name for form in LLAMA_CPP.formats} - K_AND_IQ]


def test_a_tie_is_offered_what_fits_its_every_tensor() -> None:
    tie = Unit("tie", 0, "kind", tuple(Tensor(f"{n}.weight", (2, n), "F32") for n in (256, 96)))
    assert offered(LLAMA_CPP.space((tie,), menu=(), fixed_bytes=0, n_weights=1)) == [{form.name for form in LLAMA_CPP.formats} - K_AND_IQ]


@pytest.mark.parametrize(("given", "meant"), [("q4_k", "Q4_K"), ("Q4_K_M", "Q4_K"), ("iq2xxs", "IQ2_XXS"), ("bf-16", "BF16")])
def test_a_near_miss_is_told_what_was_meant(given: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        LLAMA_CPP.format(given)
    assert sentence(caught.value, given).endswith(f"did you mean {meant}?")


def test_a_far_miss_is_told_every_name() -> None:
    with pytest.raises(UserError) as caught:
        LLAMA_CPP.format("float eight")
    sentence(caught.value, "'float eight'", *(form.name for form in LLAMA_CPP.formats))


def test_targets_are_found_under_their_own_names() -> None:
    assert all(name == engine.name for name, engine in ENGINES.items())
    assert target_named("llama.cpp") is LLAMA_CPP


def test_the_sizes_of_a_tie_are_the_sums_of_its_tensors() -> None:
    tensors = tuple(Tensor(f"blk.0.ffn_{kind}_exps.3.weight", shape, "BF16") for kind, shape in (("up", (6, 40)), ("down", (40, 6))))
    units = discover((*tensors, Tensor("blk.0.attn_q.weight", (8, 40), "BF16")))
    space = NATIVE.space(units, menu=[form.name for form in NATIVE.formats], fixed_bytes=0, n_weights=1)
    assert [unit.name for unit in space.units] == ["blk.0.expert.3", "blk.0.attn_q"]
    assert [len(unit.tensors) for unit in space.units] == [2, 1]
    fitting = [f for f, form in enumerate(space.formats) if all(form.fits(tensor.shape) for tensor in tensors)]
    assert len(fitting) > sum(not form.only_named for form in space.formats)
    for form, bits in ((space.formats[f], space.size_bits[0, f]) for f in fitting):
        assert bits == 8 * sum(form.size_bytes(tensor.shape) for tensor in tensors)


@pytest.mark.parametrize(("menu", "n_formats"), [((), len(INTEGER_FORMATS)), (("INT2_G32", "DROP"), 1), (("DROP",), len(INTEGER_FORMATS))])
def test_dropping_is_offered_to_experts_and_where_it_is_asked_for(menu: tuple[str, ...], n_formats: int) -> None:
    names = ("token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_up_shexp.weight", "blk.0.ffn_up_exps.0.weight", "blk.0.ffn_up_exps.1.weight")
    space = NATIVE.space(discover([Tensor(name, (8, 64), "F32") for name in names]), menu=menu, fixed_bytes=0, n_weights=1)
    assert space.offered[:, space.formats.index(DROP)].tolist() == [False, False, False, *2 * ["DROP" in menu]]
    assert space.offered[:, :-1].sum(axis=1).tolist() == 5 * [n_formats]
    assert DROP.size_bytes((8, 64)) == 0
