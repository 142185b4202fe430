"""Distortion of weights by each format, against numpy, and which formats are worth offering, against brute force."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import Distortion, Floats, GgmlCodec, PackedTensors, matrix_shape, measure_distortion, open_source
from bitwright.engines import LLAMA_CPP, NATIVE
from bitwright.progress import Advance, Progress, Silent
from bitwright.spaces import BlockFormat, Space, Tensor, Unit, discover
from bitwright.testing.codec_contract import importance
from tests.compress import made_sources as made

MENU = ("F32", "BF16", "Q8_0", "Q4_0", "IQ4_NL", "IQ2_XXS")
DENSE = Unit("q", 0, "attn_q", (Tensor("blk.0.attn_q.weight", (8, 256), "F32"),))
EXPERTS = Unit("up", 0, "ffn_up_exps", (Tensor("blk.0.ffn_up_exps.weight", (3, 4, 256), "F32"),))
TIE = Unit("kv", 0, "attn_kv", (Tensor("blk.0.attn_k.weight", (4, 256), "F32"), Tensor("blk.0.attn_v.weight", (2, 256), "F32")))
UNITS = (DENSE, EXPERTS, TIE)
CHANNELS = {EXPERTS.tensors[0].name: importance(3, 256), TIE.tensors[0].name: importance(1, 256), TIE.tensors[1].name: importance(1, 256, 7)}


def measured(folder: Path, units: tuple[Unit, ...], channels: dict[str, Floats], *menu: str) -> tuple[Space, PackedTensors, Distortion]:
    source = made.MadeSource([tensor for unit in units for tensor in unit.tensors])
    space = LLAMA_CPP.space(units, menu=menu or MENU, fixed_bytes=0, n_weights=1)
    levels = PackedTensors(folder, source, GgmlCodec(), channels)
    return space, levels, measure_distortion(space, levels, progress=Silent())


def column(name: str) -> int:
    return [form.name for form in LLAMA_CPP.formats].index(name)


@pytest.mark.parametrize("name", [*(name for name in MENU if name not in ("F32", "IQ2_XXS")), pytest.param("IQ2_XXS", marks=pytest.mark.slow)])
def test_errors_are_those_of_numpy(name: str, tmp_path: Path) -> None:
    _, levels, found = measured(tmp_path, UNITS, CHANNELS, name)
    form = LLAMA_CPP.format(name)
    for u, unit in enumerate(UNITS):
        sums = np.zeros(4)
        for tensor in unit.tensors:
            n_rows, n_columns = matrix_shape(tensor)
            original = levels.source.read(tensor).astype(np.float64)
            channels = CHANNELS.get(tensor.name, np.ones((1, n_columns)))
            if form.needs_importance and tensor.name not in CHANNELS:
                break
            expert = np.repeat(np.arange(len(channels)), n_rows // len(channels))
            change = GgmlCodec().decode(levels.encode(tensor, form), form, (n_rows, n_columns)) - original
            weights = channels[expert].astype(np.float64)  # (n_rows, n_columns)
            sums += [(change**2).sum(), (original**2).sum(), (weights * change**2).sum(), (weights * original**2).sum()]
        else:
            assert found.plain[u, column(name)] == pytest.approx(sums[0] / sums[1], rel=1e-4)
            assert found.weighted[u, column(name)] == pytest.approx(sums[2] / sums[3], rel=1e-4)
            assert found.weighted[u, column(name)] > 0


def test_what_needs_importance_is_tried_only_where_it_is_known(tmp_path: Path) -> None:
    _, _, found = measured(tmp_path, UNITS, CHANNELS)
    assert np.isnan(found.weighted[:, column("IQ2_XXS")]).tolist() == [True, False, False]
    half_known = {name: values for name, values in CHANNELS.items() if "attn_k" not in name}
    _, _, found = measured(tmp_path / "half", UNITS, half_known)
    assert np.isnan(found.plain[:, column("IQ2_XXS")]).tolist() == [True, False, True]


def test_without_importance_both_errors_are_one(tmp_path: Path) -> None:
    _, _, found = measured(tmp_path, (DENSE,), {})
    tried = ~np.isnan(found.plain)
    assert tried.sum() == len(MENU) - 1
    assert (found.plain[tried] == found.weighted[tried]).all()


def test_only_offered_pairs_are_tried(tmp_path: Path) -> None:
    space, _, found = measured(tmp_path, UNITS, CHANNELS, "Q8_0", "Q4_0")
    assert (~np.isnan(found.plain) == space.offered).all()


def test_a_lossless_format_makes_larger_ones_pointless(gguf_256: Path, tmp_path: Path) -> None:
    source = open_source(str(gguf_256))
    units = discover(source.tensors)[:3]
    space = LLAMA_CPP.space(units, menu=("F32", "BF16", "Q8_0", "Q4_0"), fixed_bytes=0, n_weights=1)
    found = measure_distortion(space, PackedTensors(tmp_path, source, GgmlCodec(), {}), progress=Silent())
    assert (found.plain[:, column("BF16")] == 0).all()
    assert np.isnan(found.plain[:, column("F32")]).all()
    assert (found.plain[:, [column("Q8_0"), column("Q4_0")]] > 0).all()
    assert not any(file.name.endswith((".F32", ".BF16")) for file in tmp_path.iterdir())
    keep = found.worth_offering(space)
    assert keep[:, column("BF16")].all()
    assert not keep[:, column("F32")].any()


def test_a_quantized_original_is_its_own_best(gguf_quantized: Path, tmp_path: Path) -> None:
    source = open_source(str(gguf_quantized))
    unit = next(unit for unit in discover(source.tensors) if unit.tensors[0].stored == "Q4_K")
    space = LLAMA_CPP.space((unit,), menu=("F16", "Q8_0", "Q4_K", "Q4_0", "Q3_K"), fixed_bytes=0, n_weights=1)
    keep = measure_distortion(space, PackedTensors(tmp_path, source, GgmlCodec(), {}), progress=Silent()).worth_offering(space)
    assert [form.name for form, kept in zip(space.formats, keep[0], strict=True) if kept] == ["Q4_K", "Q3_K"]


@pytest.mark.parametrize("channels", [{}, {DENSE.tensors[0].name: np.ones((1, 256), np.float32)}])
def test_weights_of_zero_have_no_error(channels: dict[str, Floats], tmp_path: Path) -> None:
    class Zero(made.MadeSource):
        def read(self, tensor: Tensor) -> Floats:
            return np.zeros(matrix_shape(tensor), dtype=np.float32)

    space = LLAMA_CPP.space((DENSE,), menu=("Q8_0", "Q4_0"), fixed_bytes=0, n_weights=1)
    found = measure_distortion(space, PackedTensors(tmp_path, Zero(DENSE.tensors), GgmlCodec(), channels), progress=Silent())
    assert found.plain[0, column("Q4_0")] == found.weighted[0, column("Q4_0")] == 0
    assert found.worth_offering(space).sum() == 1


def test_channels_that_no_token_reached_have_no_error(tmp_path: Path) -> None:
    channels = {DENSE.tensors[0].name: np.zeros((1, 256), np.float32)}
    _, _, found = measured(tmp_path, (DENSE,), channels, "Q4_0")
    assert found.weighted[0, column("Q4_0")] == 0 < found.plain[0, column("Q4_0")]


def test_progress_counts_every_weight(tmp_path: Path) -> None:
    class Counted(Progress):
        total = done = 0

        @contextmanager
        def stage(self, title: str, total: int) -> Iterator[Advance]:
            self.total = total

            def advance(n: int) -> None:
                self.done += n

            yield advance

    counted = Counted()
    space = LLAMA_CPP.space(UNITS, menu=("Q8_0",), fixed_bytes=0, n_weights=1)
    levels = PackedTensors(tmp_path, made.MadeSource([tensor for unit in UNITS for tensor in unit.tensors]), GgmlCodec(), {})
    measure_distortion(space, levels, progress=counted)
    assert counted.done == counted.total == sum(unit.n_weights for unit in UNITS)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Space, Distortion]:
    """Sizes and errors on coarse grids, so that many pairs are equal; some pairs were not tried or are not offered."""
    n_units, n_formats = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    cells = n_units * n_formats

    def table(values: st.SearchStrategy) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=cells, max_size=cells))).reshape(n_units, n_formats)

    offered = table(st.booleans()).astype(np.bool_)
    offered[:, 0] = True
    formats = tuple(BlockFormat(f"F{f}", 1, 1) for f in range(n_formats))
    units = tuple(Unit(f"u{u}", 0, "k", ()) for u in range(n_units))
    space = Space(units, formats, table(st.integers(0, 4)).astype(np.int64), offered, 0, 1)
    errors = table(st.sampled_from([0.0, 0.25, 0.5, 1.0, np.nan])).astype(np.float64)
    return space, Distortion(errors.copy(), errors)


@pytest.mark.slow
@given(made_tables=tables())
@settings(max_examples=120)
def test_worth_offering_is_what_nothing_beats(made_tables: tuple[Space, Distortion]) -> None:
    space, distortion = made_tables
    keep = distortion.worth_offering(space)
    for u, row in enumerate(keep):
        tried = [f for f in range(len(row)) if space.offered[u, f] and not np.isnan(distortion.weighted[u, f])]
        value = {f: (space.size_bits[u, f], distortion.weighted[u, f]) for f in tried}
        for f, kept in enumerate(row):
            beaten = f not in value or any(
                value[g][0] <= value[f][0] and value[g][1] <= value[f][1] and (value[g] != value[f] or g < f) for g in tried if g != f
            )
            assert kept == (not beaten)


def test_formats_of_bits_alone_are_offered_as_if_there_were_no_others() -> None:
    units = (Unit("q", 0, "attn_q", (Tensor("q.weight", (8, 64), "F32"),)),)
    menu = ("INT2_G64", "INT3_G64", "INT4_G64", "INT4_2OF4", "INT3_2OF4")
    space = NATIVE.space(units, menu=menu, fixed_bytes=0, n_weights=512)
    errors = {"INT2_G64": 0.4, "INT3_G64": 0.3, "INT4_G64": 0.1, "INT4_2OF4": 0.2, "INT3_2OF4": 0.5}  # of 2.5, 3.5, 4.5, 3 and 2.5 bits
    table = np.array([[errors.get(form.name, np.nan) for form in space.formats]])
    offered = Distortion(table, table).worth_offering(space)[0]
    assert {form.name for form, is_offered in zip(space.formats, offered, strict=True) if is_offered} == set(menu) - {"INT3_2OF4"}
