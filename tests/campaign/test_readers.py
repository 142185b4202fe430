"""Mutated files for every reader: what is wrong is refused in a sentence, soon and in little memory, and what is accepted means what it says.

`BITWRIGHT_CAMPAIGN=20000` in the environment gives the mutants of each reader, and `BITWRIGHT_SEED` another seed. A failure names seed and number.
"""

import json
import os
import resource
import struct
import time
import tomllib
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import save

from bitwright.compress import (
    CONFIG,
    INDEX,
    WIDTHS,
    GgufSource,
    PinnedCodes,
    dimensions,
    entries,
    quantization_of,
    read_imatrix,
    read_pinned_weights,
    write_imatrix,
)
from bitwright.compress.codecs.pinned_weights import pin_weights
from bitwright.compress.models.checkpoints.checkpoint_shards import weight_map
from bitwright.devices.device import read_device, read_devices
from bitwright.dialects import Module, offered_by
from bitwright.dialects.known import DIALECTS
from bitwright.engines import DEFAULT_ENGINE, Serving, memory_model_named
from bitwright.engines.compressed_tensors.layout import CompressedTensors
from bitwright.engines.compressed_tensors.target import VLLM
from bitwright.errors import PlanError, UserError
from bitwright.objectives import Store, readable_store
from bitwright.spaces import PACKED_FORMATS, Tensor, read_plan
from bitwright.written_files import digest
from tests.campaign import figures, mutate
from tests.sentences import sentence

SHORT, SEED = int(os.environ.get("BITWRIGHT_CAMPAIGN", "0")), int(os.environ.get("BITWRIGHT_SEED", "1"))
SECONDS, BYTES = 5.0, 2**30
UP, DOWN = "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"
MODULES = {UP: Module("model.layers.0.mlp.up_proj", (64, 64), "ffn_up"), DOWN: Module("model.layers.0.mlp.down_proj", (64, 64), "ffn_down")}
QUERY = {"blk.0.attn_q.weight": Module("model.layers.0.self_attn.q_proj", (64, 64), "attn_q")}
FORMATS = offered_by(PACKED_FORMATS)
BINARY = (mutate.bytes_of, mutate.head_of, mutate.counts_of, mutate.counts_of)
WORDS = (mutate.bytes_of, mutate.words_of)
JSON = (mutate.bytes_of, mutate.words_of, mutate.json_of, mutate.json_of, mutate.json_of)


@dataclass(frozen=True)
class Outcome:
    """Counts of mutants accepted and refused, the longest processor time of one in seconds, and the bytes that the process grew by at most."""

    accepted: int
    refused: int
    seconds: float
    grown_bytes: int


def campaign(
    path: Path, original: bytes, read: Callable[[], object], mutators: tuple[mutate.Mutator, ...], *, short: int = 150, subject: str = ""
) -> Outcome:
    """Put mutants of `original` at `path` and `read` each; `read` compares what it accepts with a reference. Its figures are of `subject`, by default
    the name of the file.

    Raises:
        AssertionError: something else than a sentence was raised, or one took too long.
    """
    path.write_bytes(original)
    read()
    counts, longest, before = [0, 0], 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, mutant in enumerate(mutate.mutants(original, SHORT or short, SEED, *mutators)):
        path.write_bytes(mutant)
        started, where = time.process_time(), f"seed {SEED}, mutant {number}, of {len(mutant)} bytes: {mutant[:300]!r}"
        try:
            read()
            counts[0] += 1
        except UserError as error:
            sentence(error)
            counts[1] += 1
        except BaseException as error:  # a panic of a library in Rust is no Exception
            kept = Path(os.environ.get("BITWRIGHT_KEPT", path.parent)) / f"failed-{path.name}"
            kept.write_bytes(mutant)
            error.add_note(f"{where} (kept as {kept})")
            raise
        seconds = time.process_time() - started  # of this process alone; pytest's own limit ends what waits for ever
        assert seconds < SECONDS, f"{seconds:.1f} s: {where}"
        longest = max(longest, seconds)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < BYTES
    found = Outcome(*counts, longest, grown)
    name, rounded = subject or path.name, round(longest, 2)
    figures.note("mutants", name, accepted=counts[0], refused=counts[1], seconds_at_most=rounded, memory_growth_mb=grown >> 20)
    return found


def tiny_gguf(path: Path) -> bytes:
    """A file of a tensor or two in two formats, with metadata of most types."""
    writer = GGUFWriter(path, "gemma3")
    for key, value in {"block_count": 2, "embedding_length": 64, "attention.head_count": 4, "context_length": 128, "feed_forward_length": 96}.items():
        writer.add_uint32(f"gemma3.{key}", value)
    writer.add_array("gemma3.attention.head_count_kv", [4, 2])
    writer.add_array("gemma3.attention.sliding_window_pattern", [True, False])
    writer.add_uint32("gemma3.attention.sliding_window", 16)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("tokenizer.ggml.scores", [0.0, 1.0, 2.0])
    writer.add_string("quantize.imatrix.file", "somebody's.dat")
    writer.add_float64("general.much", 0.5)
    writer.add_tensor("token_embd.weight", np.ones((3, 64), dtype=np.float16))
    writer.add_tensor(UP, np.ones((96, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.slow
def test_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"

    def read() -> None:
        source = GgufSource(path)
        library = GGUFReader(path)
        assert [(t.name, tuple(reversed(t.shape)), t.stored) for t in source.tensors] == [
            (t.name, tuple(t.shape.tolist()), t.tensor_type.name) for t in library.tensors
        ]
        for tensor, theirs in zip(source.tensors, library.tensors, strict=True):
            assert source.stored(tensor).tobytes() == theirs.data.tobytes()
        for entry in source.metadata:
            theirs = library.fields[entry.key].contents()
            assert entry.value == theirs or theirs != theirs  # not a number
        shape = dimensions(source)
        found = memory_model_named(DEFAULT_ENGINE).anatomy(source)
        assert found.use(Serving(min(64, shape.context_length)), file_bytes=path.stat().st_size).total_bytes > 0

    found = campaign(path, tiny_gguf(path), read, BINARY)
    assert found.refused


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = save({"a": np.ones((2, 3), dtype=np.float32), "b": np.arange(8, dtype=np.int8), "c": np.ones((1, 2, 2), np.float16)}, {"format": "pt"})

    def read() -> None:
        try:
            theirs = dict(safetensors.deserialize(path.read_bytes()))
        except safetensors.SafetensorError:
            with pytest.raises(UserError):
                entries(path)
            raise UserError("The library refuses it.") from None
        ours = entries(path)
        assert {name: (entry.dtype, list(entry.shape)) for name, entry in ours.items()} == {
            name: (about["dtype"], about["shape"]) for name, about in theirs.items()
        }
        for name, entry in ours.items():
            if entry.dtype in WIDTHS:
                assert entry.read(0, entry.n_weights).tobytes() == bytes(theirs[name]["data"])

    found = campaign(path, whole, read, (*BINARY, mutate.safetensors_of, mutate.safetensors_of, mutate.safetensors_of), short=400)
    assert min(found.accepted, found.refused) > 0


def test_importance_matrices(tmp_path: Path) -> None:
    known = (Tensor(UP, (96, 64), "F32"), Tensor(DOWN, (64, 96), "F32"))
    means = {tensor.name: np.ones((1, tensor.shape[-1]), dtype=np.float32) for tensor in known}
    write_imatrix(tmp_path / "imatrix.gguf", means, text="a text")
    older = struct.pack("<i", len(means))
    for name, values in means.items():
        older += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, values.size) + values.tobytes()
    for path, original in ((tmp_path / "imatrix.gguf", (tmp_path / "imatrix.gguf").read_bytes()), (tmp_path / "imatrix.dat", older)):

        def read(path: Path = path) -> None:
            for name, values in read_imatrix(path, known).items():
                assert values.shape == means[name].shape
                assert np.isfinite(values).all()

        assert campaign(path, original, read, BINARY).refused


def profile() -> bytes:
    """A device as `bitwright profile` writes one."""
    return b"""name = "a box"
memory = "8GiB"
usable = 0.8
bandwidth_gb_per_second = 40
reached = 0.7
engine = "llama.cpp"
version = "b11549"
context = 2048
sequences = 1
least_tokens_per_second = 0
avoid = ["Q2_K"]
cache = ["F16", "Q8_0"]
threads = 2
[source]
usable = "an assumption"
[[decode]]
threads = 2
seconds_per_step = 0.001
relative_error = 0.02
power_watts = 30
[decode.seconds_per_gigabyte]
Q4_K = 0.1
"""


def test_devices(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"

    def read() -> None:
        device = read_device(str(path))
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        assert (device.name, device.context, device.sequences) == (said["name"], said["context"], said["sequences"])
        assert device.bandwidth_bytes_per_second == 1e9 * said["bandwidth_gb_per_second"]
        assert 0 < device.usable_bytes <= device.memory_bytes

    assert campaign(path, profile(), read, WORDS).refused


def test_fleets(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    fleet = b"[[device]]\n" + profile().replace(b"[source]", b"[device.source]").replace(b"[[decode", b"[[device.decode").replace(
        b"[decode", b"[device.decode"
    )

    def read() -> None:
        assert len(read_devices(path)) == len(tomllib.loads(path.read_text(encoding="utf-8"))["device"])

    assert campaign(path, fleet, read, WORDS).refused


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(name: str, tmp_path: Path) -> None:
    dialect, path = DIALECTS[name], tmp_path / f"{name}.plan"
    modules = MODULES | QUERY if name.startswith("evopress-") else MODULES  # whose levels are counted by the width of its rows
    form = "Q4_K" if dialect.same_codes else "W4_G64_ZP" if name == "mlx" else "W4_G64"

    def read() -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:  # `import_plan` refuses it before any dialect
            raise PlanError("A plan must be UTF-8.") from error
        formats = dialect.read(text, modules, FORMATS)
        assert set(formats) <= set(modules)
        with suppress(PlanError):  # of what the tool could be told but would not be given by us
            assert dialect.read(dialect.write(formats, modules), modules, FORMATS) == formats

    text = "".join(f"{module.name}: 0\n" for module in modules.values()) if QUERY.keys() <= modules.keys() else dialect.write({UP: form}, modules)
    assert campaign(path, text.encode(), read, WORDS if dialect.same_codes else JSON).refused


def plan_text() -> bytes:
    """A plan with a value of every kind."""
    said: dict[str, Any] = {
        "schema_version": 2,
        "target": "llama.cpp",
        "target_version": "b1",
        "model": {"source": "m.gguf", "fingerprint": "0", "settings": {"rope": "1"}, "n_weights": 100},
        "formats": {UP: "Q4_K"},
        "size_bytes": 1000,
        "divergence": {"nats_per_token": 0.5, "standard_error": 0.1, "basis": "measured", "text": "t", "n_tokens": 9},
        "cache": {"keys": "F16", "values": "Q8_0"},
        "importance": {"path": "i", "sha256": "0"},
        "rounding": {"codes": "anew", "searched": "rtn", "shipped": "rtn"},
        "steps": [],
        "found": {"bitwright": "0", "strategy": "s", "sensitivity": "s", "calibration": "c", "seed": 0, "budget": "1MB"},
    }
    return json.dumps(said).encode()


def test_plans(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"

    def read() -> None:
        plan = read_plan(path)
        said = json.loads(path.read_text(encoding="utf-8"))
        dumped = plan.model_dump(mode="json")
        for part in ("found", "model"):
            dumped[part] = {key: value for key, value in dumped[part].items() if key in said[part]}  # others have a default
        said["divergence"] |= {key: float(said["divergence"][key]) for key in ("nats_per_token", "standard_error")}  # 10²³ is a float there
        assert {key: dumped[key] for key in said if key not in ("rounding", "cache")} == {
            key: said[key] for key in said if key not in ("rounding", "cache")
        }

    found = campaign(path, plan_text(), read, JSON)
    assert min(found.accepted, found.refused) > 0


def test_runs(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    table, values = np.arange(12.0).reshape(3, 4), {"kl": np.full((4, 1), 0.5)}
    with closing(Store(path)) as store:
        store.check_settings({"model": "0", "seed": "1"})
        store.put_array("table", table)
        store.put_text("settings", "of a run")
        store.put_measured("text", [0, 1, 2], values, first=0, seconds=1.0)
        store.put_stage("load", seconds=1.0, n_tokens=9, peak_memory_bytes=10)

    def read() -> None:
        for journal in ("-wal", "-shm", "-journal"):
            path.with_name(f"{path.name}{journal}").unlink(missing_ok=True)
        with closing(readable_store(path)) as store:
            assert not store.has_array("table") or np.array_equal(store.array("table"), table)
            assert not store.has_text("settings") or store.text("settings") == "of a run"
            assert all(np.array_equal(found, values["kl"]) for found, _ in store.all_measured("text", "kl").values())
            assert store.all_measured("text", "kl").keys() <= {(0, 1, 2)}
            assert set(store.stages()) <= {("load", 1.0, 9, 10)}
            assert set(store.settings().items()) <= {("model", "0"), ("seed", "1")}

    assert campaign(path, path.read_bytes(), read, BINARY).refused


def test_kept_codes_and_weights(tmp_path: Path) -> None:
    codes, weights = tmp_path / "codes.safetensors", tmp_path / "weights.safetensors"
    packed = {f"{UP}.INT4_G32": np.arange(64, dtype=np.uint8), f"{DOWN}.INT4_G32": np.arange(32, dtype=np.uint8)}
    pin_weights(weights, {"blk.0.ffn_gate_inp.weight": np.ones((4, 8), dtype=np.float32)})

    def read_codes() -> None:
        with pytest.raises(PlanError):
            PinnedCodes(codes, digest(weights))  # by its digest all that is not the same is refused
        kept = PinnedCodes(codes, digest(codes))
        for tensor in (UP, DOWN):
            assert kept.packed(tensor, "INT4_G32").dtype == np.uint8

    def read_weights() -> None:
        with pytest.raises(PlanError):
            read_pinned_weights(weights, digest(codes))
        assert all(matrix.dtype == np.float32 and matrix.ndim == 2 for matrix in read_pinned_weights(weights, digest(weights)).values())

    mutators = (*BINARY, mutate.safetensors_of, mutate.safetensors_of)
    assert campaign(codes, save(packed), read_codes, mutators).refused
    assert campaign(weights, weights.read_bytes(), read_weights, mutators).refused


def test_indices(tmp_path: Path) -> None:
    path = tmp_path / INDEX
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}

    def read() -> None:
        for name in weight_map(tmp_path).values():
            assert (tmp_path / name).parent == tmp_path
            assert name.endswith(".safetensors")

    assert campaign(path, json.dumps(index).encode(), read, JSON).refused


def test_config_groups(tmp_path: Path) -> None:
    layout = CompressedTensors(VLLM.formats)
    layers = {"model.layers.0.q_proj": VLLM.format("W4_G64"), "model.layers.0.mlp.experts.1.up_proj": VLLM.format("W8_G64")}
    config = {"model_type": "llama", "quantization_config": layout.settings(layers, ["lm_head"])}

    def read() -> None:
        form_of = layout.reader(quantization_of(tmp_path))
        assert all(form_of(layer) in VLLM.formats for layer in layers)

    assert campaign(tmp_path / CONFIG, json.dumps(config).encode(), read, JSON).refused
