"""Contracts of an engine, its layout and its reload. Inherit and say what is under test:

class TestMine(EngineContract):
    engine = MY_ENGINE

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tiny_model: Path) -> str:
        return str(tiny_model)  # a folder or file that `fit` takes
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.compress import WIDTHS, Bytes, Codec, Floats, PackedTensors, Source, load
from bitwright.engines import N_CONTEXTS, Check, CheckpointContainer, CheckRequest, Described, Engine, Layout, Recipe, prefixes
from bitwright.errors import BrokenPromiseError, ModelError
from bitwright.progress import Silent
from bitwright.spaces import (
    DEFAULT_CACHE,
    Format,
    ImportanceFile,
    Plan,
    PlannedDivergence,
    PlannedModel,
    Provenance,
    RequantizedCodes,
    Tensor,
    discover,
    planned_cache,
)

_PROMPT, _N_TOKENS, _LENGTH = "Once upon a time", 64, 32


@dataclass(frozen=True, eq=False)
class Built:
    """Model written for an engine to `path`, its matrices in `formats` (tensor → format), and the `size_bytes` counted beforehand."""

    engine: Engine
    model: str
    source: Source
    levels: PackedTensors
    formats: Mapping[str, str]
    size_bytes: int
    path: Path

    @property
    def plan(self) -> Plan:
        """Return the plan of the built model."""
        n_weights = sum(tensor.n_weights for tensor in self.source.tensors)
        return Plan(
            target=self.engine.name,
            target_version=self.engine.target.version,
            model=PlannedModel(source=self.model, fingerprint="", settings={}, n_weights=n_weights),
            formats=dict(self.formats),
            size_bytes=self.size_bytes,
            divergence=PlannedDivergence(nats_per_token=0.0, standard_error=0.0, basis="predicted", text="", n_tokens=0),
            cache=planned_cache(DEFAULT_CACHE),
            importance=ImportanceFile(path="", sha256=""),
            rounding=RequantizedCodes(searched=self.engine.codecs[0], shipped=self.engine.codecs[0]),
            found=Provenance(bitwright="", strategy="", sensitivity="", calibration="", seed=0, budget=""),
        )


def built(engine: Engine, model: str, folder: Path, *, seed: int, menu: tuple[str, ...] = ()) -> Built:
    """Write the model in formats of the `menu` (all of the target's where it is empty) drawn by `seed` to `folder`, its sizes counted before."""
    whole = load(model, view=engine.view)
    held = engine.held_model(whole)
    target, source = engine.target, held.source
    units = tuple(unit for unit in discover(source.tensors) if all(tensor.name in held.pieces for tensor in unit.tensors))
    decided = [tensor.name for unit in units for tensor in unit.tensors]
    container = engine.container(model)
    space = target.space(units, menu=menu, fixed_bytes=container.fixed_bytes(source, decided, folder), n_weights=1)
    rng = np.random.default_rng(seed)
    choice = np.array([rng.choice(np.flatnonzero(row)) for row in space.offered])
    importance = {tensor.name: np.ones((prod(tensor.shape[:-2]), tensor.shape[-1]), np.float32) for unit in units for tensor in unit.tensors}
    levels = PackedTensors(folder / "levels", source, engine.codec(engine.codecs[0], {}), importance)
    formats, path = space.names(choice), folder / engine.file_name
    container.write(path, Recipe(source, formats), lambda tensor: levels.encode(tensor, target.format(formats[tensor.name])))
    return Built(engine, model, source, levels, formats, space.total_bytes(choice), path)


def check_of(made: Built, plan: Plan) -> Check:
    """Run the engine's check of what was built against `plan`."""
    model = made.engine.held_model(load(made.model, view=made.engine.view))
    ids = np.random.default_rng(0).integers(3, _N_TOKENS, size=(N_CONTEXTS, _LENGTH))
    return made.engine.check(
        CheckRequest(model=model, plan=plan, path=made.path, contexts=prefixes(ids, 4), prompt=_PROMPT, engine_python="", progress=Silent())
    )


class _Foreign(Format):
    """Format that no engine has."""

    name, needs_importance, bits_per_weight = "FOREIGN", False, 1.0

    def fits(self, shape: tuple[int, ...]) -> bool:
        return True

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        return 1


class EngineContract:
    """Contract of engines: sizes are those on disk, what is written is read back, and its check can fail.

    Models are written in formats of the `menu`, by default any of the target.
    """

    engine: Engine
    menu: tuple[str, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> str:
        """Return the name of a tiny model, as `fit` takes it."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, model: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
        """Write the model in a mix of formats."""
        return built(cls.engine, model, tmp_path_factory.mktemp("engine"), seed=0, menu=cls.menu)

    @pytest.fixture(scope="class")
    @classmethod
    def checked(cls, made: Built) -> Check:
        """Return the check of a model that keeps every promise."""
        return check_of(made, made.plan)

    def test_it_says_what_it_is(self) -> None:
        """Require the target's name and version, formats of different names, codecs, and a file name without folders."""
        names = [form.name for form in self.engine.target.formats]
        assert self.engine.name == self.engine.target.name
        assert self.engine.target.version
        assert len(set(names)) == len(names) > 0
        assert self.engine.codecs
        assert Path(self.engine.file_name).name == self.engine.file_name

    def test_its_codec_serves_its_formats_and_no_others(self) -> None:
        """Require the codec to serve the target's formats and no foreign one."""
        codec = self.engine.codec(self.engine.codecs[0], {})
        assert [form.name for form in self.engine.target.formats if not codec.serves(form)] == []
        assert not codec.serves(_Foreign())

    def test_a_rounding_that_is_not_its_own_is_refused(self) -> None:
        """Require an error that names an unknown codec, and none for the engine's own."""
        for name in self.engine.codecs:
            self.engine.require_codec(name)
        with pytest.raises(Exception, match="no such rounding"):
            self.engine.require_codec("no such rounding")

    @pytest.mark.parametrize("seed", [1, 2])
    def test_sizes_are_those_on_disk(self, seed: int, model: str, tmp_path: Path) -> None:
        """Require the size counted beforehand to equal the bytes on disk, for random mixes of formats."""
        made = built(self.engine, model, tmp_path, seed=seed, menu=self.menu)
        on_disk = [file.stat().st_size for file in (made.path, *made.path.rglob("*")) if file.is_file()]
        assert made.engine.container(model).size_bytes(made.path) == sum(on_disk) == made.size_bytes

    def test_what_is_written_is_read_back(self, made: Built) -> None:
        """Require the formats and weights read back to be those written."""
        source = self.engine.container(made.model).written(made.path)
        found = {tensor.name: tensor for tensor in source.tensors}
        assert {name: found[name].stored for name in made.formats} == dict(made.formats)
        for tensor in made.source.tensors:
            form = made.formats.get(tensor.name, "")
            expected = made.levels.weights(tensor, self.engine.target.format(form)) if form else made.source.read(tensor)
            assert np.array_equal(source.read(found[tensor.name]), expected.reshape(source.read(found[tensor.name]).shape)), tensor.name

    def test_bytes_of_another_size_are_refused_and_leave_nothing(self, made: Built, tmp_path: Path) -> None:
        """Require a tensor with a wrong number of bytes to be refused, and no file left behind."""
        target, path = self.engine.target, tmp_path / self.engine.file_name

        def short(tensor: Tensor) -> Bytes:
            return made.levels.encode(tensor, target.format(made.formats[tensor.name]))[:-1]

        with pytest.raises((BrokenPromiseError, ValueError)):
            self.engine.container(made.model).write(path, Recipe(made.source, made.formats), short)
        assert [*tmp_path.iterdir()] == []

    def test_its_check_keeps_true_to_what_was_built(self, checked: Check) -> None:
        """Require the check of a true model to find no broken promise."""
        assert checked.broken == ()
        assert checked.engine
        assert len(checked.rows) > 0
        assert all(isinstance(cell, str) for row in checked.rows for cell in row)

    def test_its_check_notices_another_size(self, made: Built) -> None:
        """Require the check to notice a plan of another size."""
        assert check_of(made, made.plan.model_copy(update={"size_bytes": made.size_bytes + 1})).broken

    def test_its_check_notices_another_format(self, made: Built) -> None:
        """Require the check to name the tensor that has another format than the plan says."""
        tensor = next(iter(made.formats))
        other = next(form.name for form in self.engine.target.formats if form.name != made.formats[tensor])
        broken = check_of(made, made.plan.model_copy(update={"formats": {**made.formats, tensor: other}})).broken
        assert any(tensor in told for told in broken)


class LyingCodec(Codec):
    """Codec whose weights are one more than was packed."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def serves(self, form: Format) -> bool:
        """Return whether the true codec serves `form`."""
        return self._codec.serves(form)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Quantize with the true codec to bytes `(n_bytes,)`."""
        return self._codec.encode(weights, form, importance)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Return the true weights `(n_rows, n_columns)` plus one."""
        return self._codec.decode(packed, form, shape) + np.float32(1)


class LyingLayout(Layout):
    """Layout that decodes with a `LyingCodec`."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self.codec = layout, LyingCodec(layout.codec)

    def described(self, form: Format, shape: tuple[int, int]) -> Mapping[str, Described]:
        """Return the true layout's types and shapes."""
        return self._layout.described(form, shape)

    def arrays(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Mapping[str, Bytes]:
        """Return the true layout's tensors."""
        return self._layout.arrays(packed, form, shape)

    def packed(self, arrays: Mapping[str, Bytes], form: Format, shape: tuple[int, int]) -> Bytes:
        """Return the true layout's packed rows."""
        return self._layout.packed(arrays, form, shape)

    def settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:
        """Return the true layout's `quantization_config`."""
        return self._layout.settings(layers, others)

    def reader(self, settings: Mapping[str, Any]) -> Callable[[str], Format]:
        """Return the true layout's reader."""
        return self._layout.reader(settings)


class CheckpointEngineContract(EngineContract):
    """Contract of engines whose container is a `CheckpointContainer`: the reload notices weights that are not those written."""

    def container(self, model: str) -> CheckpointContainer:
        """Return the engine's container as a `CheckpointContainer`."""
        found = self.engine.container(model)
        assert isinstance(found, CheckpointContainer)
        return found

    def test_its_reload_takes_what_was_written(self, made: Built) -> None:
        """Require the reload to accept the weights that were written."""
        container = self.container(made.model)
        container.reload(made.path, container.written(made.path))

    def test_its_reload_notices_other_weights(self, made: Built) -> None:
        """Require the reload to fail on other weights: a reload that compares nothing passes everything else."""
        container = self.container(made.model)
        lying = replace(container, layout=LyingLayout(container.layout))
        with pytest.raises(BrokenPromiseError):
            container.reload(made.path, lying.written(made.path))


class LayoutContract:
    """Contract of layouts, for the packed `formats` that they store."""

    layout: Layout
    formats: tuple[Format, ...]
    shape = (16, 128)

    def packed(self, form: Format) -> Bytes:
        """Return packed rows of normal weights in the format `(n_bytes,)`."""
        weights = np.random.default_rng(0).normal(size=self.shape).astype(np.float32)
        return self.layout.codec.encode(weights, form, np.ones((1, self.shape[1]), np.float32))

    def test_arrays_are_taken_back(self) -> None:
        """Require `packed` to invert `arrays`."""
        for form in self.formats:
            packed = self.packed(form)
            assert np.array_equal(self.layout.packed(self.layout.arrays(packed, form, self.shape), form, self.shape), packed), form.name

    def test_arrays_are_as_described_and_of_the_size_of_the_format(self) -> None:
        """Require tensors of the described types and shapes, whose bytes add up to the format's size."""
        for form in self.formats:
            described, arrays = self.layout.described(form, self.shape), self.layout.arrays(self.packed(form), form, self.shape)
            sizes = {part: WIDTHS[dtype] * prod(shape) for part, (dtype, shape) in described.items()}
            assert {part: array.nbytes for part, array in arrays.items()} == sizes, form.name
            assert sum(sizes.values()) == form.size_bytes(self.shape), form.name

    def test_settings_say_the_format_of_every_layer(self) -> None:
        """Require `reader` to invert `settings`, and to refuse other layers."""
        layers = {f"model.layers.{i}.mlp.up_proj": form for i, form in enumerate(self.formats)}
        form_of = self.layout.reader(json.loads(json.dumps(self.layout.settings(layers, ("lm_head",)))))
        assert {layer: form_of(layer) for layer in layers} == layers
        with pytest.raises(ModelError):
            form_of("model.layers.999.mlp.up_proj")
