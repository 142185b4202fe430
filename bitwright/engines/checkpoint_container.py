"""Folder of safetensors as a container: shards, configuration, tokenizer.

What a choice changes must be its own bytes and nothing else, or sizes would not add up. So the tensors are cut into shards by their bytes in the
source, and every header, the configuration and the index are filled up with spaces to the longest that any choice makes them. Shards are written from
the first tensor to the last, one tensor in memory at a time.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.compress import (
    CONFIG,
    FLOAT_TYPES,
    INDEX,
    LINEAR_VIEW,
    WHOLE,
    WIDTHS,
    Bytes,
    CheckpointEntry,
    CheckpointFiles,
    ModuleView,
    Source,
    header,
    in_module_order,
    most_similar_experts,
    open_checkpoint_files,
)
from bitwright.engines.checkpoint_source import CheckpointSource
from bitwright.engines.container import MODEL, Container, Recipe
from bitwright.engines.layout import Described, Layout
from bitwright.engines.undecided_tensors import passthrough_bytes, passthrough_dtype
from bitwright.errors import BrokenPromiseError
from bitwright.spaces import DROP, PRUNE, DroppedExpert, Format, Structure, Target, Tensor, expert_of
from bitwright.whole_files import write_chunks
from bitwright.written_files import publishing

SHARD_BYTES = 5_000_000_000
_PER_NAME = 48  # what stands around a layer's name in the configuration: quotes, comma, line break, indentation, the marks of a pattern
_METADATA = {"format": "pt"}

#: from the temporary folder and what we read in it: raises BrokenPromiseError where the engine's own loader finds other weights
Reload = Callable[[Path, CheckpointSource], None]


@dataclass(frozen=True, eq=False)
class CheckpointContainer(Container):
    """Checkpoint of the model that a user calls `model`, for `target`, its packed layers as `layout` has them.

    Its tensors are those that `view` has of the model, but those of the blocks `gone`; the other blocks are numbered anew. Of the routed experts of
    each block those in `experts` are kept, all where it is empty. The blocks `unattended` are without their attention.
    """

    model: str
    target: Target
    layout: Layout
    reload: Reload
    view: ModuleView = LINEAR_VIEW
    shard_bytes: int = SHARD_BYTES
    gone: tuple[int, ...] = ()
    experts: tuple[tuple[int, ...], ...] = ()
    unattended: tuple[int, ...] = ()

    @cached_property
    def home(self) -> CheckpointFiles:
        """Configuration, tokenizer and other files of the checkpoint besides its weights."""
        whole = open_checkpoint_files(self.model, self.view).cut_by(self.target.cut)
        return whole.with_experts(self.experts).without_attention(self.unattended).without(self.gone)

    def keeping(self, structure: Structure) -> "CheckpointContainer":
        """Return the container of the blocks, attentions and experts of a structure that are kept."""
        return replace(self, gone=structure.gone, experts=structure.experts, unattended=structure.unattended)

    def fixed_bytes(self, source: Source, decided: Iterable[str], scratch: Path) -> int:  # noqa: ARG002
        """Count the bytes of headers, tokenizer, configuration and every tensor whose name is not in `decided`."""
        names = frozenset(decided)
        shards = self._shards(source)
        kept = sum(prod(slot.shape) * WIDTHS[passthrough_dtype(slot)] for shard in shards for slot in shard if slot.tensor.name not in names)
        words = sum(len(words) for words in self.home.files.values())
        return kept + words + len(self._config({}, (), self._config_room(shards))) + sum(self._rooms(shards, names))

    def write(self, path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> Path:
        """Write the shards and files of a checkpoint to a temporary folder, read them back, and rename it."""
        with publishing(path, MODEL) as part:
            part.mkdir()
            for name, words in self.home.files.items():
                write_chunks(part / name, [words])
            digests = self._write_weights(part, recipe, packed)
            self._verify(part, recipe, digests)
        return path

    def size_bytes(self, path: Path) -> int:
        """Sum the sizes of all files in the folder, in bytes."""
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    def written(self, path: Path) -> CheckpointSource:
        """Open the checkpoint at `path`, with tensors named as in the recipe."""
        return CheckpointSource(path, self.home, self.layout)

    # --- sizes

    def _shards(self, source: Source) -> list[list[CheckpointEntry]]:
        """Return the tensors in file order, cut into the source's shards before one would grow too large."""
        shards: list[list[CheckpointEntry]] = [[]]
        size_bytes = 0
        for slot in self.home.checkpoint_entries(source.tensors):
            n_bytes = prod(slot.shape) * WIDTHS[passthrough_dtype(slot)]
            if shards[-1] and size_bytes + n_bytes > self.shard_bytes:
                shards.append([])
                size_bytes = 0
            shards[-1].append(slot)
            size_bytes += n_bytes
        return shards

    def _rooms(self, shards: list[list[CheckpointEntry]], decided: frozenset[str]) -> list[int]:
        """Bytes kept for the header of each shard, and for the index where there are several."""
        longest: dict[tuple[tuple[int, ...], bool], tuple[int, int]] = {}
        headers, index = [], len(_index({}, 0)) + 24
        for shard in shards:
            digits = len(str(4 * sum(prod(slot.shape) for slot in shard) + 64 * len(shard)))
            room = 16 + len(json.dumps({"__metadata__": _METADATA}))
            for slot in shard:
                kind = slot.shape, slot.tensor.name in decided
                if kind not in longest:
                    longest[kind] = self._longest(*kind)
                n_tensors, n_characters = longest[kind]
                room += n_characters + n_tensors * (len(slot.name) + 2 * digits)
                index += n_tensors * (len(slot.name) + len(_shard_name(0, len(shards))) + 40)
            headers.append(-(-room // 8) * 8)
        return headers if len(shards) == 1 else [*headers, index]

    def _longest(self, shape: tuple[int, ...], decided: bool) -> tuple[int, int]:
        """Return the most tensors that a slot of this shape becomes, and the most characters that they take in a header beside names and places."""
        described: list[Mapping[str, Described]] = [{"weight": ("BF16", shape)}]
        if decided and len(shape) == 2:
            n_rows, n_columns = shape
            forms = [form for form in self.target.formats if form.name not in FLOAT_TYPES and form.fits(shape)]
            described += [self.layout.described(form, (n_rows, n_columns)) for form in forms]
        texts = [[len(part) + len(dtype) + len(str(list(size))) + 48 for part, (dtype, size) in of_form.items()] for of_form in described]
        return max(len(of_form) for of_form in texts), max(sum(of_form) for of_form in texts)

    def _config_room(self, shards: list[list[CheckpointEntry]]) -> int:
        """Bytes kept for the configuration: every format in use, and every layer named once."""
        forms = [form for form in self.target.formats if form.name not in FLOAT_TYPES]
        longest = json.dumps(self._settings({form.name: form for form in forms}, ()), indent=2)
        names = sum(len(slot.layer) + _PER_NAME + 2 * slot.layer.count(".") for shard in shards for slot in shard)
        return len(longest) + names

    # --- writing

    def _settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:
        config = {key: value for key, value in self.home.config.items() if key != "quantization_config"}
        layers = {**layers, **dict.fromkeys(self.home.absent, PRUNE)}
        if not layers:
            return config
        dtype = self.layout.dtype(layers) or self.home.dtype
        return config | ({"dtype": dtype} if dtype else {}) | {"quantization_config": self.layout.settings(layers, others)}

    def _config(self, layers: Mapping[str, Format], others: tuple[str, ...], room: int) -> bytes:
        return json.dumps(self._settings(layers, others), indent=2).encode().ljust(room)

    def _write_weights(self, folder: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> dict[str, str]:
        """Write shards, index and configuration; the SHA-256 of what each tensor of the recipe became, by its name."""
        shards = self._shards(recipe.source)
        rooms, digests = self._rooms(shards, frozenset(recipe.formats)), dict[str, str]()
        replacements = most_similar_experts(recipe.source) if DROP.name in recipe.formats.values() else {}
        layers: dict[str, Format] = {}
        others: list[str] = []
        places: dict[str, str] = {}
        for i, shard in enumerate(shards):
            entries: dict[str, Described] = {}
            for slot in shard:
                form = self._form(recipe, slot)
                entries |= self._entries(slot, form)
                if isinstance(form, Format):
                    layers[slot.layer] = DroppedExpert(replacement=replacements.get(expert_of(slot.tensor.name), -1)) if form == DROP else form
                elif len(slot.shape) > 1:
                    others.append(slot.layer)
            name = WHOLE if len(shards) == 1 else _shard_name(i, len(shards))
            places |= dict.fromkeys(entries, name)
            sized = {entry: (dtype, shape, WIDTHS[dtype] * prod(shape)) for entry, (dtype, shape) in entries.items()}
            of_shard = (np.ascontiguousarray(data).data for data in self._data(recipe, shard, packed, digests))
            write_chunks(folder / name, chain([header(sized, _METADATA, rooms[i])], of_shard))
        if len(shards) > 1:
            index = _index(places, sum(file.stat().st_size for file in folder.glob("*.safetensors")))
            write_chunks(folder / INDEX, [index.ljust(rooms[-1])])
        write_chunks(folder / CONFIG, [self._config(layers, tuple(others), self._config_room(shards))])
        return digests

    def _form(self, recipe: Recipe, slot: CheckpointEntry) -> Format | str:
        """Return the format of a packed layer, or the type of one kept as floats."""
        name = recipe.formats.get(slot.tensor.name, "")
        if name and name not in FLOAT_TYPES:
            return self.target.format(name)
        return name or passthrough_dtype(slot)

    def _entries(self, slot: CheckpointEntry, form: Format | str) -> dict[str, Described]:
        if isinstance(form, Format):
            return {f"{slot.layer}.{part}": described for part, described in self.layout.described(form, slot.matrix).items()}
        return {slot.name: (form, slot.shape)}

    def _data(self, recipe: Recipe, shard: list[CheckpointEntry], packed: Callable[[Tensor], Bytes], digests: dict[str, str]) -> Iterator[Bytes]:
        """Yield the bytes of a shard's tensors one after another; what is not the source's is noted in `digests`."""
        standing, whole = "", np.empty(0, dtype=np.uint8)
        for slot in shard:
            if slot.tensor.name in recipe.changed:
                changed = recipe.kept(slot.tensor)
                digests[slot.tensor.name] = hashlib.sha256(changed.data).hexdigest()
                yield changed
                continue
            if slot.tensor.name not in recipe.formats:
                yield passthrough_bytes(recipe.source, slot)
                continue
            if slot.tensor.name != standing:
                standing, whole = slot.tensor.name, packed(slot.tensor)
                digests[standing] = hashlib.sha256(np.ascontiguousarray(whole).data).hexdigest()
            if not whole.size:  # an expert that is dropped
                continue
            form = self._form(recipe, slot)
            shared = form.shared_bytes(slot.tensor.shape[-1]) if isinstance(form, Format) else 0
            rows = whole[: len(whole) - shared].reshape(prod(slot.tensor.shape[:-1]), -1)[slot.start : slot.stop]
            ordered = in_module_order(slot.piece, torch.from_numpy(np.array(rows))).numpy().reshape(-1)
            ordered = np.concatenate([ordered, whole[len(whole) - shared :]])
            if isinstance(form, Format):
                yield from self.layout.arrays(ordered, form, slot.matrix).values()
            else:
                yield ordered

    def _verify(self, folder: Path, recipe: Recipe, digests: Mapping[str, str]) -> None:
        """Read everything back, first here and then as the engine does."""
        found = self.written(folder)
        for tensor in found.tensors:
            form = recipe.formats.get(tensor.name, tensor.stored)
            data = found.stored(tensor) if tensor.name in digests else np.empty(0, dtype=np.uint8)
            if tensor.stored != form or (tensor.name in digests and hashlib.sha256(data.data).hexdigest() != digests[tensor.name]):
                raise BrokenPromiseError(f"Every tensor must be written as planned; {tensor.name} was not: nothing was kept, please report this.")
        self.reload(folder, found)


def _shard_name(i: int, n: int) -> str:
    return f"model-{i + 1:05d}-of-{n:05d}.safetensors"


def _index(places: Mapping[str, str], size_bytes: int) -> bytes:
    return json.dumps({"metadata": {"total_size": size_bytes}, "weight_map": dict(places)}, indent=2).encode()
