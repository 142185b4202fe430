from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import LINEAR_VIEW, Job, Model, PackedTensors, Room, WeightSwapper, integer_codec, load, swapping
from bitwright.compress.in_place.packed_weights import PackedWeights
from bitwright.compress.models.source import Floats
from bitwright.compress.models.streaming.weight_reader import WeightReader
from bitwright.engines import NATIVE
from bitwright.errors import ModelError
from bitwright.progress import ignore
from tests.compress.models.streaming.streamed_models import IDS, in_memory, logits, resident, streamed
from tests.sentences import sentence

pytestmark = pytest.mark.slow

FOLDERS = ("llama_tied", "llama_gqa", "tiny_qwen3_moe", "tiny_mixtral")


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_streamed_logits_are_those_in_memory_to_the_bit(folder: Path, tmp_path: Path) -> None:
    for expected, found in zip(logits(in_memory(folder)), logits(streamed(folder, tmp_path)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_view_of_what_a_loader_unpacks_binds_weights_that_are_not_in_memory(llama_tied: Path, tmp_path: Path) -> None:
    model = load(str(llama_tied), view=LINEAR_VIEW, room=Room(tmp_path, stream=True))
    assert model.pieces.keys() == load(str(llama_tied), view=LINEAR_VIEW).pieces.keys()
    for expected, found in zip(logits(in_memory(llama_tied)), logits(model), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_pass_reads_every_weight_once_for_all_batches(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, read, fill = streamed(folder, tmp_path), Counter[str](), WeightReader.fill

    def counted(reader: WeightReader, name: str, parameter: torch.Tensor) -> None:
        read[name] += 1
        fill(reader, name, parameter)

    monkeypatch.setattr(WeightReader, "fill", counted)
    logits(model, at_once=1)
    tied = {name for name in read if model.module.config.tie_word_embeddings and "embed_tokens" in name}
    assert {name: n for name, n in read.items() if n > 1} == dict.fromkeys(tied, 2)
    assert {name for name, _ in model.module.named_parameters()} - read.keys() == set(resident(model))


def test_between_passes_only_what_lies_outside_the_blocks_is_in_memory(folder: Path, tmp_path: Path) -> None:
    model = streamed(folder, tmp_path)
    logits(model)
    assert resident(model) == ["model.norm.weight"]


def test_a_pass_outside_jobs_streams_too(folder: Path, tmp_path: Path) -> None:
    found, expected = (model.module(torch.from_numpy(IDS), use_cache=False).logits for model in (streamed(folder, tmp_path), in_memory(folder)))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def halved(model: Model, swapper: WeightSwapper, name: str) -> None:
    tensor = next(tensor for tensor in model.tensors if tensor.name == name)
    weights = model.source.read(tensor) / 2
    swapper.load({name: lambda: weights})


def test_jobs_with_other_weights_pass_each_block_together(llama_gqa: Path, tmp_path: Path) -> None:
    changed = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight", "lm_head.weight")

    def found(model: Model) -> list[torch.Tensor]:
        with swapping(model) as swapper:

            def run(name: str) -> torch.Tensor:
                halved(model, swapper, name)
                with torch.inference_mode():
                    output: torch.Tensor = model.module(torch.from_numpy(IDS), use_cache=False).logits
                return output

            return [*model.each([Job(lambda name=name: run(name), IDS.size) for name in changed], ignore)]

    expected, together = found(in_memory(llama_gqa)), found(streamed(llama_gqa, tmp_path))
    assert len({float(output.sum()) for output in expected}) == len(changed)
    for one, other in zip(together, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def levels_in(folder: Path, model: Model) -> PackedTensors:
    return PackedTensors(folder / "levels", model.source, integer_codec(), {})


def packed(model: Model, levels: PackedTensors, names: Iterable[str], form: str) -> dict[str, PackedWeights]:
    """The weights of tensors in a format of the native container."""
    return {tensor.name: PackedWeights(levels, tensor, NATIVE.format(form)) for tensor in model.tensors if tensor.name in names}


@pytest.mark.parametrize("is_last_whole", [False, True])
def test_original_weights_are_read_only_for_jobs_that_need_them(
    is_last_whole: bool, llama_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three jobs: two choices one after the other, the first for all matrices of a block and the second for one of them, a choice for the others, and
    one for a whole block.
    """

    def found(model: Model) -> list[torch.Tensor]:
        blocks = [[t.name for t in model.tensors if f"layers.{i}." in t.name and len(t.shape) == 2] for i in (0, 1)]
        both, levels = [*blocks[0], *blocks[1]], levels_in(tmp_path, model)
        whole = [packed(model, levels, both, form) for form in ("INT4_G32", "INT8_G32", "INT4_G32")]
        part = packed(model, levels, [blocks[0][0], blocks[1][-1]], "INT4_G32")
        with swapping(model) as swapper:

            def run(weights: list[dict[str, PackedWeights]]) -> torch.Tensor:
                outputs = []
                for each in weights:
                    swapper.load(each)
                    with torch.inference_mode():
                        outputs.append(model.module(torch.from_numpy(IDS), use_cache=False).logits)
                return torch.stack(outputs)

            jobs = [[whole[0]], [whole[1]], [whole[2]] if is_last_whole else [whole[2], part]]
            return [*model.each([Job(lambda each=each: run(each), IDS.size) for each in jobs], ignore)]

    model, expected = streamed(llama_gqa, tmp_path), found(in_memory(llama_gqa))
    read, fill = Counter[str](), WeightReader.fill

    def counted(reader: WeightReader, name: str, parameter: torch.Tensor) -> None:
        read[name] += 1
        fill(reader, name, parameter)

    monkeypatch.setattr(WeightReader, "fill", counted)
    for one, other in zip(found(model), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert ("model.layers.0.mlp.up_proj.weight" not in read) == is_last_whole
    assert "model.layers.0.input_layernorm.weight" in read


def test_jobs_with_the_same_weights_of_a_block_follow_each_other(llama_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, expanded, rows = streamed(llama_gqa, tmp_path), Counter[str](), PackedWeights.rows

    def counted(weights: PackedWeights, start: int, stop: int) -> Floats:
        expanded[weights.tensor.name] += 1
        return rows(weights, start, stop)

    monkeypatch.setattr(PackedWeights, "rows", counted)
    name, levels = "model.layers.1.mlp.up_proj.weight", levels_in(tmp_path, model)
    with swapping(model) as swapper:

        def run(form: str) -> None:
            swapper.load(packed(model, levels, [name], form))
            with torch.inference_mode():
                model.module(torch.from_numpy(IDS), use_cache=False)

        list(model.each([Job(lambda form=form: run(form), IDS.size) for form in ("INT4_G32", "INT8_G32", "INT4_G32", "INT8_G32")], ignore))
    assert expanded == {name: 2}


def test_original_weights_come_back(llama_gqa: Path, tmp_path: Path) -> None:
    model = streamed(llama_gqa, tmp_path)
    before = logits(model)
    with swapping(model) as swapper:
        halved(model, swapper, "model.layers.1.mlp.down_proj.weight")
        assert not np.array_equal(logits(model)[0], before[0])
        original = in_memory(llama_gqa).module.get_parameter("model.layers.1.mlp.down_proj.weight")
        torch.testing.assert_close(swapper.originals["model.layers.1.mlp.down_proj.weight"], original, rtol=0, atol=0)
    for after, expected in zip(logits(model), before, strict=True):
        np.testing.assert_array_equal(after, expected)


def test_an_error_in_one_job_ends_all(llama_gqa: Path, tmp_path: Path) -> None:
    model, ended = streamed(llama_gqa, tmp_path), []

    def run(i: int) -> None:
        try:
            with torch.inference_mode():
                model.module(torch.from_numpy(IDS), use_cache=False)
            if i == 1:
                raise ValueError("a job's own")
        finally:
            ended.append(i)

    with pytest.raises(ValueError, match="a job's own"):
        list(model.each([Job(lambda i=i: run(i), 1) for i in range(3)], ignore))
    assert sorted(ended) == [0, 1, 2]
    assert resident(model) == ["model.norm.weight"]
    logits(model)


def test_derivatives_through_the_whole_model_are_refused(llama_gqa: Path, tmp_path: Path) -> None:
    model = streamed(llama_gqa, tmp_path)
    weights = {name: weight.detach().requires_grad_() for name, weight in model.module.named_parameters() if "layers.0" in name}
    with pytest.raises(ModelError) as raised:
        torch.func.functional_call(model.module, weights, (torch.from_numpy(IDS),), {"use_cache": False})
    assert "go through its blocks one at a time" in sentence(raised.value)


@pytest.mark.parametrize(
    "read",
    [
        lambda weight, x: x @ weight.T,
        lambda weight, x: torch.cat([weight, weight]),
        lambda weight, x: torch.nn.functional.linear(x, weight=weight),
    ],
    ids=["view", "list", "keyword"],
)
def test_a_block_that_is_read_from_outside_is_refused(read: Callable[..., torch.Tensor], llama_gqa: Path, tmp_path: Path) -> None:
    """Refuse it by a sentence: reading memory that was freed would end the process."""
    model = streamed(llama_gqa, tmp_path)
    norm, weight = model.module.model.norm, model.module.get_parameter("model.layers.0.self_attn.q_proj.weight")
    norm.register_forward_pre_hook(lambda _, given: read(weight, given[0]) is None and None)
    with pytest.raises(ModelError) as raised:
        logits(model)
    assert "within the block alone" in sentence(raised.value)


def test_weights_that_change_while_they_are_streamed_are_named(tmp_path: Path, llama_gqa: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in llama_gqa.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    model, shard = streamed(folder, tmp_path), folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes())
    with pytest.raises(ModelError) as raised:
        logits(model)
    assert "must not change" in sentence(raised.value)
    shard.unlink()
    with pytest.raises(ModelError) as raised:
        logits(model)
    assert "is gone" in sentence(raised.value)
