"""Channels put in order, and models whose channels have formats of their own or are gone: searched, built, and loaded by transformers."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import bitwright as bw
from bitwright.compress import load
from bitwright.engines import NATIVE, NATIVE_CHANNELS, model_as_held
from bitwright.errors import PlanError, UserError
from bitwright.objectives import Shape
from bitwright.pipeline.channel_order import order_channels
from bitwright.pipeline.loaded_run import text_named
from bitwright.pipeline.pricing.run_space import uniforms
from bitwright.predictors import channel_energies
from bitwright.progress import Silent
from bitwright.spaces import part_of
from tests.commands import Cli
from tests.measuring import random_tokens
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

MENU = ("INT2_G32", "INT4_G32", "INT8_G32")


@pytest.fixture(scope="module", params=["one_block_mixtral", "llama_96"])
def ordered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and the same with its channels in order."""
    folder: Path = request.getfixturevalue(request.param)
    out = tmp_path_factory.mktemp("ordered") / "model"
    found = order_channels(str(folder), "self", out, n_sequences=4, length=16)
    assert found.n_parts == sum("ffn_down" in tensor.name for tensor in model_as_held(load(str(folder)), NATIVE).tensors)
    assert found.shares == tuple(sorted(found.shares, reverse=True))
    assert sum(found.shares) == pytest.approx(1)
    return folder, out


@pytest.fixture(scope="module")
def fitted(ordered: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> bw.pipeline.Fitted:
    settings = small(ordered[1], target="native-channels", formats=MENU, structure=("channels",), n_calibration=4, n_held_out=2)
    return bw.fit(settings, bw.parse_budget("9bpw"), tmp_path_factory.mktemp("channels") / "run", by=UNSEARCHED)


def test_the_model_stays_the_same_and_keeps_its_words(ordered: tuple[Path, Path]) -> None:
    ids = torch.from_numpy(random_tokens(2, 12).ids)
    with torch.no_grad():
        before, after = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits for folder in ordered)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (ordered[1] / name).read_bytes() == (ordered[0] / name).read_bytes()


def test_channels_are_by_falling_energy_and_in_order_already(ordered: tuple[Path, Path], tmp_path: Path) -> None:
    whole = load(str(ordered[0]))
    text = text_named("self", whole, Shape(4, 0, 16), seed=0, progress=Silent()).calibration
    before = channel_energies(model_as_held(whole, NATIVE), text, progress=Silent())
    after = channel_energies(model_as_held(load(str(ordered[1])), NATIVE), text, progress=Silent())
    for name, energies in before.items():
        np.testing.assert_allclose(after[name], np.sort(energies)[::-1], rtol=1e-3)
    assert any((np.diff(energies) > 0).any() for energies in before.values())


def test_what_was_built_keeps_every_promise(fitted: bw.pipeline.Fitted) -> None:
    assert fitted.check.broken == ()
    forms = {form for name, form in fitted.plan.formats.items() if part_of(name) >= 0}
    assert len(forms) > 1
    assert {name for name in uniforms(bw.open_run(fitted.report.parent)) if "PRUNE" in name} == set()
    assert bw.verify(fitted.plan, fitted.model).broken == ()


def test_channels_may_be_pruned_by_hand_up_to_all_of_a_part(fitted: bw.pipeline.Fitted, tmp_path: Path) -> None:
    formats, space = fitted.plan.formats, bw.open_run(fitted.report.parent).space
    shapes = {tensor.name: tensor.shape for unit in space.units for tensor in unit.tensors}
    first = next(name for name in formats if "down_proj" in name and part_of(name) == 0)
    stem = first.partition(".part")[0]
    gone = {name: "PRUNE" for name in formats if name.startswith(f"{stem}.part")}
    saved = sum(NATIVE_CHANNELS.format(formats[name]).size_bytes(shapes[name]) for name in gone)
    plan = fitted.plan.model_copy(update={"formats": formats | gone, "size_bytes": fitted.plan.size_bytes - saved})
    bw.build(plan, tmp_path / "model")
    assert len(gone) > 3
    assert bw.verify(plan, tmp_path / "model").broken == ()


def test_nothing_else_can_be_pruned(fitted: bw.pipeline.Fitted, tmp_path: Path) -> None:
    name = next(name for name in fitted.plan.formats if "q_proj" in name)
    with pytest.raises(PlanError) as caught:
        bw.build(fitted.plan.model_copy(update={"formats": fitted.plan.formats | {name: "PRUNE"}}), tmp_path / "model")
    sentence(caught.value, "PRUNE", "only channels", name)
    half = next(name for name in fitted.plan.formats if "up_proj" in name)
    with pytest.raises(PlanError) as caught:
        bw.build(fitted.plan.model_copy(update={"formats": fitted.plan.formats | {half: "PRUNE"}}), tmp_path / "model")
    sentence(caught.value, "one decision")


def test_the_matrices_of_a_part_may_have_formats_of_their_own(ordered: tuple[Path, Path], tmp_path: Path) -> None:
    settings = small(ordered[1], target="native-channel-matrices", formats=MENU, n_calibration=4, n_held_out=2)
    fitted = bw.fit(settings, bw.parse_budget("9bpw"), tmp_path / "run", by=UNSEARCHED)
    parts: dict[str, set[str]] = {}
    for name, form in fitted.plan.formats.items():
        if part_of(name) >= 0:
            parts.setdefault(re.sub("gate|up|down", "", name), set()).add(form)
    assert fitted.check.broken == ()
    assert any(len(forms) > 1 for forms in parts.values())


@pytest.mark.parametrize("codec", ["gptq", "hqq"])
def test_channels_are_rounded_by_every_codec(one_block_mixtral: Path, tmp_path: Path, codec: str) -> None:
    settings = small(
        one_block_mixtral,
        target="native-channels",
        formats=MENU,
        structure=("channels",),
        n_calibration=4,
        n_held_out=2,
        codec=codec,
        sensitivity="importance",
    )
    assert bw.fit(settings, bw.parse_budget("9bpw"), tmp_path / "run", by=UNSEARCHED).check.broken == ()


def test_the_command_says_what_came_of_it(bitwright: Cli, llama_96: Path, tmp_path: Path) -> None:
    ended = bitwright("order", llama_96, "--out", tmp_path / "model", "--calibration-sequences", 4, "--sequence-length", 16)
    assert ended.code == 0
    assert "2 feed-forward parts" in ended.out
    assert "--target native-channels" in ended.out


def test_the_model_itself_is_not_written_over(llama_96: Path) -> None:
    with pytest.raises(UserError) as caught:
        order_channels(str(llama_96), "self", llama_96 / ".." / llama_96.name)
    sentence(caught.value, "which is read", "another place")


def test_a_file_of_gguf_is_refused(gguf_256: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        order_channels(str(gguf_256), "self", tmp_path / "model", length=64)
    sentence(caught.value, "GGUF", "folder")
    assert not (tmp_path / "model").exists()
