"""Weights and cache under one memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import open_source
from bitwright.engines import DEFAULT_ENGINE, memory_model_named
from bitwright.engines.llama_cpp.log import engine_memory
from bitwright.errors import BudgetError, UserError
from bitwright.methods.by_name import method_named
from bitwright.pipeline import Memory, Run, Search, build
from bitwright.pipeline.calibration.long_text import cache_text, long_text
from bitwright.pipeline.fleet import plan_fleet
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.planning.memory_budget import memory_of, serve_command, serving_of_model
from bitwright.pipeline.planning.size_limits import bounded, settings_for_limit
from bitwright.pipeline.pricing.run_space import with_cache_units
from bitwright.pipeline.verbs import describe, write_plan
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import ANY_CACHE, DEFAULT_CACHE, CacheTypes, chosen_cache, file_bytes
from tests.compress import tiny_models as tiny
from tests.measuring import space_of
from tests.model_fixtures import saved
from tests.pipeline.test_fleet import BOARD
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

CONTEXT = 1024


@pytest.fixture(scope="module")
def run(llama_64: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search that decides about the cache too."""
    settings = small(llama_64, formats=("Q8_0", "Q5_0", "Q4_0"), cache_types="any")
    by = Search(method_named("auto"), evaluations=3)
    return bw.pipeline.search(settings, tmp_path_factory.mktemp("limits") / "run", n_points=2, by=by)


def memory(run: Run, share: float, types: CacheTypes = DEFAULT_CACHE, *, context: int = CONTEXT) -> int:
    """Bytes that hold the smallest file, with the cache in these types, and `share` of the way to the largest."""
    space = run.space
    sizes = [file_bytes(space, choice) for choice in (space.smallest(), space.largest())]
    found = memory_model_named(DEFAULT_ENGINE).anatomy(open_source(run.settings.model))
    use = found.use(bw.pipeline.Serving(context, 1, types.keys, types.values), file_bytes=sizes[0])
    return round(use.total_bytes + share * (sizes[1] - sizes[0]))


def asked(size: int, types: CacheTypes | None = None, *, context: int = CONTEXT) -> Memory:
    return Memory(bw.parse_budget(f"{size}B"), context, 1, types or ANY_CACHE)


def test_file_and_cache_fill_one_memory(run: Run) -> None:
    losses = []
    found = memory_model_named(DEFAULT_ENGINE).anatomy(open_source(run.settings.model))
    for size in range(memory(run, 0.0, CacheTypes("Q4_0", "Q4_0")), memory(run, 0.5), 100_000):
        limited, size_bytes = bounded(run, asked(size))
        solution = solve(limited.space, limited.table, 8 * size_bytes)
        types = chosen_cache(limited.space, solution.choice)
        use = found.use(bw.pipeline.Serving(CONTEXT, 1, types.keys, types.values), file_bytes=file_bytes(limited.space, solution.choice))
        assert use.total_bytes == size - size_bytes + limited.space.total_bytes(solution.choice)  # to the byte
        assert use.total_bytes <= size
        for fixed in (DEFAULT_CACHE, CacheTypes("Q8_0", "Q8_0"), CacheTypes("Q4_0", "Q4_0")):
            room = size - memory(run, 0.0, fixed) + file_bytes(limited.space, run.space.smallest())
            if file_bytes(limited.space, run.space.smallest()) <= room < run.original_bytes:
                other, other_bytes = bounded(run, asked(size, fixed))
                assert solve(other.space, limited.table, 8 * other_bytes).loss >= solution.loss - 1e-12
        losses.append(solution.loss)
    assert losses == sorted(losses, reverse=True)
    assert len(losses) > 3


def test_a_plan_says_the_types_and_the_engine_keeps_to_them(run: Run, tmp_path: Path) -> None:
    size = memory(run, 0.4, CacheTypes("Q8_0", "Q8_0"))
    plan, summary = bw.plan(run, asked(size))
    assert plan.cache.types != DEFAULT_CACHE
    assert any(f"cache {plan.cache.types}" in candidate.label for candidate in summary.candidates if candidate.chosen)
    write_plan(plan, tmp_path / "plan.json")
    assert bw.read_plan(tmp_path / "plan.json") == plan
    assert set(plan.formats) == {tensor.name for unit in run.space.units[:-2] for tensor in unit.tensors}
    assert "cache" not in (tmp_path / "plan.tensor-types.txt").read_text(encoding="utf-8")
    serving = serving_of_model(str(tmp_path / "plan.json"), CONTEXT, 1, "")
    assert f"-ctk {plan.cache.keys.lower()} -ctv {plan.cache.values.lower()}" in serve_command(plan.target, "m", serving)
    counted = memory_of(str(tmp_path / "plan.json"), serving)
    assert counted.total_bytes <= size
    build(plan, tmp_path / "model.gguf")
    engine = engine_memory(tmp_path / "model.gguf", serving, fill=0)
    assert sum(line.size_bytes for line in counted.cache) == pytest.approx(engine.cache_bytes, abs=2**14)
    checked = bw.pipeline.verify(plan, tmp_path / "model.gguf")
    assert not checked.broken
    assert ("KV cache types", str(plan.cache.types), "as planned") in checked.rows


def test_types_are_measured_at_the_context_as_far_as_the_text_goes(llama_64: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(tiny.TEXT * 40), encoding="utf-8")
    known = small(llama_64, calibration=str(text), cache_types="any")
    assert settings_for_limit(known, asked(10**9, context=100)).cache_length == 100
    assert settings_for_limit(known, asked(10**9, context=4096)).cache_length == known.cache_length == 1024
    for length, wanted in ((1024, (2, 1024)), (100, (20, 100)), (16, (8, 16))):
        bench = set_up(replace(known, cache_length=length), tmp_path / str(length), device="cpu", progress=Silent())
        assert long_text(bench).ids.shape == wanted
    own = set_up(small(llama_64, cache_types="any"), tmp_path / "own", device="cpu", progress=Silent())
    assert long_text(own).ids.tolist() == own.texts.calibration.ids.tolist()


def test_what_types_were_measured_on_is_told(run: Run, searched: Run) -> None:
    (words,) = cache_text(run).items()
    assert words[1].startswith("8 sequences of 24 tokens of sampled from the model")
    assert describe(run).settings[words[0]] == words[1]
    assert cache_text(searched) == {}


def test_a_file_has_the_cache_as_fine_as_it_is_offered(run: Run) -> None:
    plan, _ = bw.plan(run, bw.parse_budget("9bpw"))
    assert plan.cache.types == DEFAULT_CACHE
    assert all(chosen_cache(run.space, np.array(choice)) == DEFAULT_CACHE for choice in run.evaluated())  # the search looked at files
    assert describe(run).space.units == run.space.units[:-2]


def test_types_that_are_named_are_kept_and_measured(llama_64: Path, tmp_path: Path) -> None:
    types = CacheTypes("Q5_0", "Q4_0")
    settings = small(llama_64)
    base = memory_of(str(llama_64), bw.pipeline.Serving(CONTEXT, 1, types.keys, types.values)).total_bytes
    limit = asked(base - 300_000, types)
    fitted = bw.fit(settings_for_limit(settings, limit), limit, tmp_path / "out", by=Search(method_named("auto"), evaluations=2))
    assert fitted.plan.cache.types == types
    opened = bw.open_run(tmp_path / "out")
    measured = [m for m in opened.measurements.values() if m.nats_per_token == fitted.plan.divergence.nats_per_token]
    assert all(chosen_cache(opened.space, np.array(m.choice)) == types for m in measured)
    assert fitted.plan.divergence.nats_per_token > 0.005  # what types so coarse cost is in it
    with pytest.raises(UserError) as refused:
        bw.plan(opened, asked(base - 300_000, CacheTypes("Q8_0", "Q8_0")))
    sentence(refused.value, "Q8_0", "--cache-types")


def test_a_run_without_types_takes_those_that_are_named(searched: Run) -> None:
    serving = bw.pipeline.Serving(64, 1, "BF16", "F16")
    size = memory_of(searched.settings.model, serving).total_bytes - searched.original_bytes // 2
    plan, _ = bw.plan(searched, Memory(bw.parse_budget(f"{size}B"), 64, 1, CacheTypes("BF16", "F16")))
    assert plan.cache.types == CacheTypes("BF16", "F16")
    plan, _ = bw.plan(searched, Memory(bw.parse_budget(f"{size}B"), 64))
    assert plan.cache.types == DEFAULT_CACHE


def test_a_fleet_decides_for_each_device(run: Run) -> None:
    size = memory(run, 0.3, CacheTypes("Q8_0", "Q8_0"))
    cases = (ANY_CACHE, DEFAULT_CACHE, CacheTypes("Q4_0", "Q8_0"))
    devices = [replace(BOARD, context=CONTEXT, memory_bytes=size, cache=types, name=str(types)) for types in cases]
    decided, plain, named = plan_fleet(run, devices).rows
    assert isinstance(decided, bw.pipeline.DevicePlan)
    assert isinstance(named, bw.pipeline.DevicePlan)
    assert isinstance(plain, bw.pipeline.DeviceWithoutPlan)
    assert "a KV cache in Q8_0" in plain.reason
    assert named.plan.cache.types == CacheTypes("Q4_0", "Q8_0")
    assert decided.plan.cache.types != DEFAULT_CACHE
    for row in (decided, named):
        assert row.memory.total_bytes <= size
        assert row.plan.size_bytes == file_bytes(run.space, row.choice)
    long = plan_fleet(run, [replace(devices[0], context=4096)]).rows[0]
    assert isinstance(long, bw.pipeline.DeviceWithoutPlan)
    assert "a context of" in long.reason


def test_what_a_memory_cannot_hold_is_refused(run: Run, llama_64: Path) -> None:
    with pytest.raises(BudgetError) as refused:
        bw.plan(run, asked(memory(run, 0.0, CacheTypes("Q4_0", "Q4_0")) - 200_000))
    sentence(refused.value, "MiB", "context")
    with pytest.raises(BudgetError) as refused:
        bw.plan(run, asked(2**30))
    sentence(refused.value, "fits as it is")
    for wrong, words in (
        ({"cache_types": "any", "sensitivity": "importance"}, ("importance", "--cache-types")),
        ({"cache_types": "any", "target": "native", "formats": ()}, ("native", "--cache-types")),
        ({"cache_types": "q9"}, ("Q9",)),
    ):
        with pytest.raises(UserError) as given:
            small(llama_64, **wrong)
        sentence(given.value, *words)


def test_a_published_method_knows_no_cache(llama_64: Path, tmp_path: Path) -> None:
    by = Search(method_named("evopress"), evaluations=1)
    with pytest.raises(UserError) as refused:
        bw.pipeline.search(small(llama_64, cache_types="any"), tmp_path / "run", n_points=2, by=by)
    sentence(refused.value, "evopress", "--cache-types f16")


def test_latent_attention_has_nothing_to_decide(tmp_path: Path) -> None:
    model_type, settings, _ = tiny.FAMILIES["deepseek-v2"]
    folder = saved(tmp_path / "deepseek", model_type, settings)
    for types in ("any", "q8_0"):
        bench = set_up(small(folder, cache_types=types), tmp_path / types, device="cpu", progress=Silent())
        space = space_of(bench.model, ["Q8_0"])
        if types == "any":
            assert with_cache_units(bench, space) is space
        else:
            with pytest.raises(UserError) as refused:
                with_cache_units(bench, space)
            sentence(refused.value, "deepseek2", "Q8_0")


def test_heads_that_no_block_divides_keep_a_plain_cache(llama_gqa: Path, tmp_path: Path) -> None:
    base = memory_of(str(llama_gqa), bw.pipeline.Serving(64)).total_bytes
    limit = Memory(bw.parse_budget(f"{base - 60_000}B"), 64)
    fitted = bw.fit(settings_for_limit(small(llama_gqa), limit), limit, tmp_path / "out", by=Search(method_named("auto"), evaluations=1))
    assert fitted.plan.cache.types == DEFAULT_CACHE
    with pytest.raises(UserError) as refused:
        bw.fit(small(llama_gqa, cache_types="q8_0"), bw.parse_budget("9bpw"), tmp_path / "other")
    sentence(refused.value, "Q8_0", "head")
