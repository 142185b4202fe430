"""Parts taken away, in llama.cpp and in torch with the same parts set to zero."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import (
    Floats,
    GgmlCodec,
    GgufSource,
    Model,
    OrderedSource,
    PackedTensors,
    PartOrder,
    applied,
    dimensions,
    load,
    ordered_importance,
    ordered_model,
    part_order,
    whole_structure,
)
from bitwright.engines.container import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.joined_source import structured_source
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.llama_cpp.structured_source import StructuredSource, require_structure_taken
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.errors import UserError
from bitwright.objectives import next_token_log_probabilities
from bitwright.spaces import Structure, StructureKind, role_of
from tests.compress import tiny_models as tiny
from tests.made_once import made_once
from tests.measuring import random_tokens
from tests.model_fixtures import saved
from tests.sentences import sentence

_CONTEXTS = [random_tokens(1, n, seed=n).ids[0] for n in (2, 9, 30)]
_SHAPE = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
_KINDS = {
    "all": ((2, 2, 2), (256, 256, 256)),
    "attention": ((2, 0, 2), (256, 256, 256)),
    "channels": ((2, 2, 2), (256, 96, 32)),
    "heads": ((1, 2, 1), (256, 256, 256)),
    "first block": ((0, 1, 2), (0, 256, 256)),
    "layers": ((2, 0, 2), (256, 0, 256)),
    "mixed": ((1, 0, 0), (160, 0, 64)),
}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def original(request: pytest.FixtureRequest, model_folders: Path) -> Model:
    """Model of three blocks with two groups of two heads each, whose rows of q and k are in another order in Qwen2, and have biases."""
    return of_shape(model_folders, request.param)


def importance(model: Model) -> dict[str, Floats]:
    rng = np.random.default_rng(3)
    return {tensor.name: rng.uniform(0.1, 9, (1, tensor.shape[-1])).astype(np.float32) for tensor in model.tensors if len(tensor.shape) > 1}


@pytest.fixture(scope="module")
def ordered(original: Model) -> Model:
    return ordered_model(original, part_order(original.source, importance(original), ("heads", "channels")))


@contextmanager
def zeroed(model: Model, structure: Structure) -> Iterator[None]:
    """Set the columns of the output and down projections that are not kept to zero, as the definition says."""
    shape, weights = dimensions(model.source), dict[str, Floats]()
    tensors = {tensor.name: tensor for tensor in model.tensors}
    for i, (groups, channels) in enumerate(zip(structure.head_groups, structure.channels, strict=True)):
        of_group = shape.query_width // whole_structure(model.source).head_groups[i]
        for role, kept in (("attn_output", groups * of_group), ("ffn_down", channels)):
            matrix = model.source.read(tensors[f"blk.{i}.{role}.weight"]).copy()
            matrix[:, kept:] = 0
            weights[f"blk.{i}.{role}.weight"] = matrix
    with applied(model, {name: lambda name=name: weights[name] for name in weights}):  # type: ignore[misc]
        yield


@pytest.mark.parametrize("kind", _KINDS)
def test_llama_cpp_computes_what_torch_does_with_the_same_parts_zeroed(kind: str, original: Model, ordered: Model, tmp_path: Path) -> None:
    structure = Structure(*_KINDS[kind])
    source, path = StructuredSource(ordered.source, structure), tmp_path / "model.gguf"
    write_gguf(path, Recipe(source, {}), source.stored)
    engine = LlamaCpp(path, n_vocabulary=tiny.N_TOKENS, n_threads=1)
    with zeroed(ordered, structure):
        expected = next_token_log_probabilities(ordered, _CONTEXTS)
    whole = next_token_log_probabilities(original, _CONTEXTS)
    for context, p, w in zip(_CONTEXTS, expected, whole, strict=True):
        found = engine.next_token(context.tolist())
        assert 0 <= tiny.divergence(p, found) < 1e-3
        if kind == "all":
            assert tiny.divergence(w, found) < 1e-3
    if kind not in ("all", "layers"):
        assert max(tiny.divergence(w, p) for w, p in zip(whole, expected, strict=True)) > 1e-2
    assert source.architecture == ("deci" if kind not in ("all", "layers") else original.source.architecture)
    assert GgufSource(path).architecture == source.architecture


def test_a_file_without_the_size_of_a_head_gets_it(ordered: Model, tmp_path: Path) -> None:
    """GGUF files of Llama may leave the size of a head out, which is then taken from the first block's number of heads."""
    structure = Structure(*_KINDS["heads"])
    plain = OrderedSource(ordered.source, PartOrder({}, {}))
    plain.metadata = tuple(entry for entry in plain.metadata if not entry.key.endswith((".key_length", ".value_length", ".dimension_count")))
    source, path = StructuredSource(plain, structure), tmp_path / "model.gguf"
    write_gguf(path, Recipe(source, {}), source.stored)
    engine = LlamaCpp(path, n_vocabulary=tiny.N_TOKENS, n_threads=1)
    with zeroed(ordered, structure):
        (expected,) = next_token_log_probabilities(ordered, _CONTEXTS[-1:])
    assert tiny.divergence(expected, engine.next_token(_CONTEXTS[-1].tolist())) < 1e-3


def test_the_order_is_that_of_falling_energy(original: Model) -> None:
    order, source = part_order(original.source, known := importance(original), ("channels", "heads")), original.source
    down = next(tensor for tensor in source.tensors if tensor.name == "blk.1.ffn_down.weight")
    energies = [known[down.name][0, c] * sum(float(w) ** 2 for w in source.read(down)[:, c]) for c in range(256)]
    found = order.columns[down.name]
    assert [energies[c] for c in found] == pytest.approx(sorted(energies, reverse=True))
    assert (order.rows["blk.1.ffn_up.weight"] == found).all()
    assert sorted(order.rows["blk.1.attn_q.weight"]) == list(range(128))
    assert order.digest != part_order(source, known, ("channels",)).digest
    assert part_order(source, known, ()).digest == ""


def test_narrow_tensors_are_the_first_blocks_of_wide_ones(ordered: Model) -> None:
    source = StructuredSource(ordered.source, Structure(*_KINDS["channels"]))
    levels = PackedTensors(Path(), ordered.source, GgmlCodec(), ordered_importance(importance(ordered), part_order(ordered.source, {}, ())))
    form = LLAMA_CPP.format("Q4_0")
    for tensor in source.tensors:
        if ".1.ffn_" in tensor.name and len(tensor.shape) > 1:
            wide = source.of(tensor)
            narrow = source.narrowed(tensor, levels.encode(wide, form), form.name)
            found = levels.codec.decode(narrow, form, (tensor.shape[0], tensor.shape[1]))
            expected = levels.codec.decode(levels.encode(wide, form), form, (wide.shape[0], wide.shape[1]))
            np.testing.assert_array_equal(found, expected[: tensor.shape[0], : tensor.shape[1]])


def test_a_file_is_read_back_as_wide_as_the_model(ordered: Model) -> None:
    source = StructuredSource(ordered.source, Structure(*_KINDS["mixed"]))
    wide = {name: given() for name, given in source.widened(source).items()}
    tensors: Mapping[str, tuple[int, ...]] = {tensor.name: tensor.shape for tensor in ordered.tensors}
    assert all(wide[name].shape == tensors[name] for name in wide)
    assert not wide["blk.1.ffn_down.weight"].any()
    assert not wide["blk.2.attn_output.weight"].any()
    for name in ("blk.0.attn_q.weight", "blk.0.ffn_down.weight", "token_embd.weight"):
        tensor = next(tensor for tensor in ordered.tensors if tensor.name == name)
        full = ordered.source.read(tensor)
        kept = wide[name] != 0
        np.testing.assert_array_equal(wide[name][kept], full[kept])
        assert kept.any()


# --- refused


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        (Structure((2, 2, 2), (256, 0, 256)), "block 1 keeps attention alone"),
        (Structure((2, 2, 2), (256, 40, 256)), "multiples of 32"),
        (Structure((2, 3, 2), (256, 256, 256)), "no more than it has"),
        (Structure((0, 0, 0), (0, 0, 0)), "must keep a block"),
        (Structure((0, 0, 2), (0, 256, 256)), "must keep heads"),
        (Structure((2, 2), (256, 256)), "each of 3 blocks"),
    ],
)
def test_what_cannot_be_loaded_is_refused(structure: Structure, words: str, ordered: Model) -> None:
    with pytest.raises(UserError) as refused:
        StructuredSource(ordered.source, structure)
    sentence(refused.value, words)


def test_a_width_that_cuts_a_block_of_its_format_is_refused(ordered: Model) -> None:
    source = StructuredSource(ordered.source, Structure(*_KINDS["channels"]))
    source.require_whole_blocks({"blk.1.ffn_down.weight": "Q4_0"})
    with pytest.raises(UserError) as refused:
        source.require_whole_blocks({"blk.1.ffn_down.weight": "Q4_K"})
    sentence(refused.value, "blk.1.ffn_down.weight", "96", "256")


def test_a_mixture_of_experts_is_refused(mixtral: Model) -> None:
    with pytest.raises(UserError) as refused:
        require_structure_taken(mixtral.source, ("attention",))
    sentence(refused.value, "with experts", "--structure layers")


@pytest.mark.parametrize("kinds", [("layers",), ("attention",)])
def test_a_bias_behind_a_part_is_refused(kinds: tuple[StructureKind, ...], model_folders: Path) -> None:
    """A block that is measured as zeros would keep the bias of its output."""
    model = of_shape(model_folders, "llama", attention_bias=True)
    with pytest.raises(UserError) as refused:
        require_structure_taken(model.source, kinds)
    sentence(refused.value, "attn_output.bias")


def test_a_family_without_widths_loses_whole_layers_alone(model_folders: Path) -> None:
    """Qwen3 with a head of its own is no `openelm`."""
    model = of_shape(model_folders, "qwen3", head_dim=32)
    with pytest.raises(UserError) as refused:
        require_structure_taken(model.source, ("channels",))
    sentence(refused.value, "qwen3", "head of its own", "layers")
    require_structure_taken(model.source, ("layers",))
    source = structured_source(model.source, Structure((2, 0, 2), (256, 0, 256)))
    assert source.architecture == "qwen3"
    assert len(source.tensors) == len(model.tensors) - len([t for t in model.tensors if t.name.startswith("blk.1.")])


def of_shape(folders: Path, family: str, **settings: object) -> Model:
    """Return a model of `_SHAPE`, saved once."""
    name = "-".join(["structured", family, *(f"{key}-{value}" for key, value in settings.items())])
    return load(str(made_once(folders / name, lambda place: saved(place, family, {**_SHAPE, **settings}))))


# --- mixtures of experts


def test_llama_cpp_computes_a_mixture_with_fewer_blocks(model_folders: Path, tmp_path: Path) -> None:
    model = of_shape(model_folders, "qwen2_moe", **tiny.EXPERTS, shared_expert_intermediate_size=64)
    whole = whole_structure(model.source)
    kept = Structure(*((n[0], 0, n[2]) for n in (whole.head_groups, whole.channels)))
    source, path = structured_source(model.source, kept), tmp_path / "model.gguf"
    write_gguf(path, Recipe(source, {}), source.stored)
    ends = ("attn_output.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight")
    last = [tensor for tensor in model.tensors if tensor.name.startswith("blk.1.") and tensor.name.endswith(ends)]
    assert len(last) == len(ends)
    with applied(model, {tensor.name: lambda tensor=tensor: np.zeros_like(model.source.read(tensor)) for tensor in last}):  # type: ignore[misc]
        expected = next_token_log_probabilities(model, _CONTEXTS)
    with applied(model, source.widened(GgufSource(path))):
        as_written = next_token_log_probabilities(model, _CONTEXTS)
    np.testing.assert_allclose(as_written, expected, atol=1e-5)
    engine = LlamaCpp(path, n_vocabulary=tiny.N_TOKENS, n_threads=1)
    assert all(0 <= tiny.divergence(p, engine.next_token(c.tolist())) < 1e-3 for c, p in zip(_CONTEXTS, expected, strict=True))


# --- Qwen3, as `openelm`


@pytest.fixture(scope="module")
def tied(model_folders: Path) -> Model:
    """Model of Qwen3's shape whose head is its embedding, heads and channels in the order of what they give."""
    model = of_shape(model_folders, "qwen3", head_dim=32, tie_word_embeddings=True)
    return ordered_model(model, part_order(model.source, importance(model), ("heads", "channels")))


@pytest.mark.parametrize("kind", ["all", "channels", "heads", "first block", "layers"])
def test_llama_cpp_computes_qwen3_as_openelm(kind: str, tied: Model, tmp_path: Path) -> None:
    structure = Structure(*_KINDS[kind])
    source, path = structured_source(tied.source, structure), tmp_path / "model.gguf"
    write_gguf(path, Recipe(source, {}), source.stored)
    with zeroed(tied, structure):
        expected = next_token_log_probabilities(tied, _CONTEXTS)
    engine = LlamaCpp(path, n_vocabulary=tiny.N_TOKENS, n_threads=1)
    assert all(0 <= tiny.divergence(p, engine.next_token(c.tolist())) < 1e-3 for c, p in zip(_CONTEXTS, expected, strict=True))
    assert source.architecture == ("qwen3" if kind in ("all", "layers") else "openelm")


def test_joined_matrices_are_written_in_one_format_and_read_back_apart(tied: Model, tmp_path: Path) -> None:
    source, path = structured_source(tied.source, Structure(*_KINDS["heads"])), tmp_path / "model.gguf"
    levels = PackedTensors(Path(), tied.source, GgmlCodec(), importance(tied))
    formats = {tensor.name: "Q8_0" for tensor in tied.tensors if role_of(tensor) in ("attn_q", "attn_k", "attn_v")}
    assert source.renamed(formats) == {f"blk.{i}.attn_qkv.weight": "Q8_0" for i in range(3)}
    source.require_whole_blocks(formats)
    form = LLAMA_CPP.format("Q8_0")
    packed = partial(source.packed, whole=lambda tensor: levels.encode(tensor, form), formats=formats)
    write_gguf(path, Recipe(source, source.renamed(formats)), packed)
    wide = source.widened(GgufSource(path))
    for tensor in tied.tensors:
        if tensor.name in formats:
            rows, found = levels.codec.decode(levels.encode(tensor, form), form, tensor.shape), wide[tensor.name]()  # type: ignore[arg-type]
            n = np.flatnonzero(found.any(axis=1)).max() + 1
            np.testing.assert_array_equal(found[:n], rows[:n])
            assert n == tensor.shape[0] // (2 if tensor.name.startswith(("blk.0", "blk.2")) else 1)
    with pytest.raises(UserError) as refused:
        source.require_whole_blocks({**formats, "blk.1.attn_k.weight": "Q4_0"})
    sentence(refused.value, "blk.1.attn_q.weight", "Q4_0")


def test_a_block_of_qwen3_keeps_its_attention(tied: Model) -> None:
    with pytest.raises(UserError) as refused:
        require_structure_taken(tied.source, ("attention",))
    sentence(refused.value, "attention", "qwen3")
    with pytest.raises(UserError) as refused:
        structured_source(tied.source, Structure(*_KINDS["attention"]))
    sentence(refused.value, "attention", "qwen3")
