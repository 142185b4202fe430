"""llama.cpp held to the contract of engines."""

from pathlib import Path

import pytest

from bitwright.compress import open_source
from bitwright.engines import ENGINES, Serving
from bitwright.testing.engine_contract import EngineContract


@pytest.mark.slow
class TestLlamaCpp(EngineContract):
    engine = ENGINES["llama.cpp"]
    # libggml takes seconds to begin with the others, which test_profiling.py loads and test_ggml.py counts and decodes
    menu = tuple(form.name for form in engine.target.formats if not form.name.startswith(("IQ1", "IQ2")))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, llama_256: Path) -> str:
        return str(llama_256)


def test_it_can_do_what_others_cannot() -> None:
    engine = ENGINES["llama.cpp"]
    assert engine.chooses_cache_types
    assert engine.ignores_windows
    assert engine.writes_tensor_types
    assert engine.memory is not None
    assert engine.parity is not None
    assert engine.serve_command("m.gguf", Serving(512)).startswith("llama-server -m m.gguf -c 512 ")
    others = [other for other in ENGINES.values() if other is not engine]
    assert not any(other.memory or other.parity or other.chooses_cache_types or other.serve_command("m", Serving(512)) for other in others)


def test_its_memory_needs_no_weights(gguf_256: Path) -> None:
    memory = ENGINES["llama.cpp"].memory
    assert memory is not None
    found = memory.anatomy(open_source(str(gguf_256)))
    assert found.use(Serving(64), file_bytes=gguf_256.stat().st_size).weights.size_bytes == gguf_256.stat().st_size - found.header_bytes
