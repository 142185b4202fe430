from pathlib import Path

import pytest

import bitwright as bw
from bitwright.compress import open_source
from bitwright.engines import DEFAULT_ENGINE, Serving, memory_model_named
from bitwright.errors import BudgetError, ModelError, UserError
from bitwright.pipeline import Run
from bitwright.pipeline.planning.memory_budget import memory_budget, memory_of
from bitwright.pipeline.verbs import write_plan
from tests.fits import Fit
from tests.sentences import sentence

SERVING = Serving(100, 2)


def test_a_file_and_its_folder_take_the_same(llama_256: Path, gguf_256: Path) -> None:
    assert memory_of(str(gguf_256), SERVING) == memory_of(str(llama_256), SERVING)
    found = memory_model_named(DEFAULT_ENGINE).anatomy(open_source(str(gguf_256)))
    assert found.use(SERVING, file_bytes=gguf_256.stat().st_size) == memory_of(str(gguf_256), SERVING)


@pytest.mark.slow
def test_a_plan_takes_what_its_file_takes(fit: Fit) -> None:
    planned = memory_of(str(fit.folder / "plan.json"), SERVING)
    assert planned == memory_of(str(fit.fitted.model), SERVING)
    assert planned.weights.size_bytes < memory_of(fit.settings.model, SERVING).weights.size_bytes


def test_a_budget_from_a_memory_fills_it_to_the_byte(gguf_256: Path) -> None:
    whole = memory_of(str(gguf_256), SERVING).total_bytes
    budget = memory_budget(str(gguf_256), bw.parse_budget(f"{whole}B"), SERVING)
    assert budget.size_bytes(0) == gguf_256.stat().st_size
    less = memory_budget(str(gguf_256), bw.parse_budget(f"{whole - 1000}B"), SERVING)
    assert less.size_bytes(0) == gguf_256.stat().st_size - 1000
    assert "100 × 2" in less.text


@pytest.mark.slow
def test_a_plan_made_for_a_memory_stays_within_it(searched: Run, tmp_path: Path) -> None:
    model = searched.settings.model
    memory = memory_of(model, SERVING).total_bytes - searched.original_bytes // 2
    made, _ = bw.plan(searched, memory_budget(model, bw.parse_budget(f"{memory}B"), SERVING))
    write_plan(made, tmp_path / "plan.json")
    found = memory_of(str(tmp_path / "plan.json"), SERVING).total_bytes
    assert found <= memory
    assert memory - found < 0.2 * searched.original_bytes
    assert "of memory" in made.found.budget


def test_what_cannot_be_counted_is_refused(gguf_256: Path, tmp_path: Path) -> None:
    cases: list[tuple[str, Serving, str, type[UserError], tuple[object, ...]]] = [
        ("4bpw", SERVING, "llama.cpp", BudgetError, ("4bpw",)),
        ("20MiB", SERVING, "llama.cpp", BudgetError, ("20MiB", "context")),
        ("4GiB", Serving(100_000), "llama.cpp", UserError, ("100,000",)),
        ("4GiB", SERVING, "native", UserError, ("native",)),
        ("4GiB", SERVING, "none", UserError, ("none",)),
    ]
    for memory, serving, target, kind, values in cases:
        with pytest.raises(kind) as refused:
            memory_budget(str(gguf_256), bw.parse_budget(memory), serving, target=target)
        sentence(refused.value, *values)
    with pytest.raises(ModelError):
        memory_of(str(tmp_path / "none.gguf"), SERVING)
