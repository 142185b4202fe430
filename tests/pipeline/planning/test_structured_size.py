"""Bytes of a structure: those of the file, and of a run in llama.cpp, whose log is asked."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bitwright as bw
from bitwright.compress import Source, open_source
from bitwright.engines import Recipe, engine_named
from bitwright.engines.llama_cpp import memory_probe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.pipeline import Memory
from bitwright.pipeline.planning.structured_size import CountedBytes
from bitwright.spaces import CacheTypes, Structure

_CONTEXT = 128
_WHOLE, _PART = Structure((2, 2), (96, 96)), Structure((1, 0), (64, 96))


@pytest.fixture(scope="module")
def source(llama_gqa: Path) -> Source:
    found = open_source(str(llama_gqa), engine_named("llama.cpp").view)
    assert {tensor.shape[-1] for tensor in found.tensors if "ffn_down" in tensor.name} == {_WHOLE.channels[0]}
    return found


def counted(source: Source, folder: Path, limit: Memory | None = None) -> CountedBytes:
    return CountedBytes(engine_named("llama.cpp"), source, limit or bw.parse_budget("1MB"), 10**6, folder)


@pytest.mark.parametrize("structure", [_WHOLE, _PART, Structure((0, 2), (0, 96))])
def test_the_file_has_the_bytes_that_were_counted(structure: Structure, source: Source, tmp_path: Path) -> None:
    kept, path = engine_named("llama.cpp").narrowed(source, structure), tmp_path / "model.gguf"
    write_gguf(path, Recipe(kept, {}), kept.stored)
    assert counted(source, tmp_path).of(structure, {}, CacheTypes()) == path.stat().st_size


def test_less_attention_needs_less_cache(source: Source, tmp_path: Path) -> None:
    limit, types = Memory(bw.parse_budget("1GB"), _CONTEXT), CacheTypes()
    bytes_of = counted(source, tmp_path, limit)
    whole, part = (bytes_of.of(structure, {}, types) for structure in (_WHOLE, _PART))
    cells = 256  # a sequence has a multiple of this many
    head = next(tensor.shape[0] for tensor in source.tensors if tensor.name == "blk.0.attn_v.weight") // 2
    of_group = 2 * 2 * head * cells  # keys and values in half precision
    assert bytes_of.cache_bits_of_a_group(types) == 8 * of_group
    kept = engine_named("llama.cpp").narrowed(source, _PART)
    of_whole, of_part = (sum(one.stored_bytes(tensor) for tensor in one.tensors) for one in (source, kept))
    assert whole - part == pytest.approx(of_whole - of_part + 3 * of_group, abs=32 * len(source.tensors))  # padding


@pytest.mark.slow
def test_llama_cpp_reserves_the_cache_that_was_counted(source: Source, tmp_path: Path) -> None:
    kept, path = engine_named("llama.cpp").narrowed(source, _PART), tmp_path / "model.gguf"
    write_gguf(path, Recipe(kept, {}), kept.stored)
    asked = {"path": str(path), "context": _CONTEXT, "parallel": 1, "keys": "F16", "values": "F16", "fill": 0, "map": False}
    said = subprocess.run([sys.executable, memory_probe.__file__, json.dumps(asked)], capture_output=True, text=True, timeout=120, check=False)
    reserved = re.search(r"KV buffer size = *([\d.]+) MiB", said.stdout + said.stderr)
    assert reserved is not None
    one_group = counted(source, tmp_path, Memory(bw.parse_budget("1GB"), _CONTEXT)).cache_bits_of_a_group(CacheTypes()) / 8
    assert float(reserved[1]) == pytest.approx(one_group / 2**20, abs=0.006)
