"""A run as it comes out of a search over a small Llama: 30 layers × 7 kinds and the tied embedding, divergences that fall with the bits."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from bitwright.engines import LLAMA_CPP
from bitwright.report import Candidate, Forecast, Quality, RunSummary, SearchHistory, SearchStep, SizeLimit, Stage, Validation
from bitwright.spaces import Choice, Space, Tensor, discover

WIDTH, HIDDEN, KEYS, VOCABULARY, LAYERS = 576, 1536, 192, 49_152, 30
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KEYS, WIDTH),
    "attn_v": (KEYS, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}
WEIGHT_OF_KIND = {"attn_v": 3.0, "ffn_down": 2.0, "attn_output": 1.2, "attn_q": 0.3, "attn_k": 0.3, "token_embd": 0.8}


def small_llama() -> Space:
    """Space of a small Llama for llama.cpp."""
    tensors = [Tensor("token_embd.weight", (VOCABULARY, WIDTH), "BF16")]
    tensors += [Tensor(f"blk.{layer}.{kind}.weight", shape, "BF16") for layer in range(LAYERS) for kind, shape in SHAPES.items()]
    units = discover(tensors)
    menu = [form.name for form in LLAMA_CPP.formats[2:]]
    return LLAMA_CPP.space(units, menu=menu, fixed_bytes=1_900_000, n_weights=sum(unit.n_weights for unit in units) + 61 * WIDTH)


def expected_divergences(space: Space, rng: np.random.Generator) -> np.ndarray:
    """Table `(n_units, n_formats)` that falls with bits and is high at both ends of the model."""
    width = np.array([form.bits_per_weight for form in space.formats])
    share = np.array([unit.n_weights * WEIGHT_OF_KIND.get(unit.kind, 1.0) for unit in space.units], dtype=float)
    ends = np.array([1 + 6 * np.exp(-unit.layer) + 2 * np.exp(unit.layer - LAYERS + 1) if unit.layer >= 0 else 1 for unit in space.units])
    noise = np.exp(rng.normal(0, 0.35, (len(space.units), 1)) + rng.normal(0, 0.06, (len(space.units), len(space.formats))))
    table = 4 * (share / share.sum() * ends)[:, None] * 2.6 ** (-width) * noise
    return np.where(space.offered, table, np.nan)


def best_for_price(space: Space, table: np.ndarray, price: float) -> Choice:
    """The best choice where a bit costs `price` nats/token: a point of the convex front."""
    return np.where(space.offered, table + price * space.size_bits, np.inf).argmin(axis=1)


def candidates(space: Space, table: np.ndarray, budget_bytes: int) -> Iterator[Candidate]:
    """Yield candidates for a budget: the best mixed choices and uniform ones."""
    rows = np.arange(len(space.units))
    rng = np.random.default_rng(7)

    def candidate(label: str, *, kind: str, choice: Choice, chosen: bool = False, measured: bool = True) -> Candidate:
        nats = float(table[rows, choice].sum())
        true = nats * float(np.exp(rng.normal(0.05, 0.06)))
        quality = Quality(true, 0.035 * true, 17.3 * float(np.exp(1.1 * true)), float(np.exp(-1.4 * true**0.6)), 65_536)
        known = quality if measured else None
        return Candidate(label, kind, choice, space.total_bytes(choice), space.bits_per_weight(choice), nats, nats, known, chosen)

    for name in ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        form = LLAMA_CPP.format(name)
        yield candidate(name, kind="uniform", choice=space.uniform(form))
    for i, price in enumerate(np.geomspace(3e-9, 3e-12, 8)):
        yield candidate(f"front {i}", kind="front", choice=best_for_price(space, table, price), measured=i % 3 > 0)
    for price in np.geomspace(1e-12, 1e-8, 2_000):
        choice = best_for_price(space, table, price)
        if space.total_bytes(choice) <= budget_bytes:
            yield candidate("runner-up", kind="plan", choice=best_for_price(space, table, price * 1.3))
            yield candidate("plan", kind="plan", choice=choice, chosen=True)
            return


@pytest.fixture(scope="session")
def summary() -> RunSummary:
    """Summary of a finished run."""
    space, budget_bytes = small_llama(), 90_000_000
    table = expected_divergences(space, np.random.default_rng(3))
    front = np.array([best_for_price(space, table, price) for price in np.geomspace(1e-7, 1e-13, 160)])
    sizes = space.total_bits(front) // 8
    order = np.argsort(sizes, kind="stable")
    return RunSummary(
        model="SmolLM2-135M",
        target="llama.cpp b11549",
        original_bytes=270_890_000,
        n_weights=space.n_weights,
        budget=SizeLimit(budget_bytes),
        space=space,
        table=table,
        front_sizes_bytes=sizes[order],
        front_sums=table[np.arange(len(space.units)), front].sum(axis=1)[order],
        front_nats=table[np.arange(len(space.units)), front].sum(axis=1)[order],
        candidates=tuple(candidates(space, table, budget_bytes)),
        courses=(),
        stages=(
            Stage("importance matrix", 38.2, 131_072, 1_420_000_000),
            Stage("sensitivities", 611.0, 2_162_688, 2_310_000_000),
            Stage("search", 4.1, 0, 310_000_000),
            Stage("measure candidates", 342.5, 1_048_576, 1_980_000_000),
            Stage("write and check", 21.9, 0, 640_000_000),
        ),
        settings={
            "bitwright": "0.1.0",
            "model": "HuggingFaceTB/SmolLM2-135M",
            "budget": "90MB",
            "calibration": "calibration.txt (sha256 5f2c1a…)",
            "sensitivity": "fisher",
            "strategy": "exact knapsack",
            "seed": "0",
            "command": "bitwright run HuggingFaceTB/SmolLM2-135M --budget 90MB --seed 0",
        },
        reference_perplexity=17.31,
        shipping=None,
        experts=(),
        texts=None,
        cost_fronts=(),
    )


def steps(sizes_bytes: np.ndarray, nats: np.ndarray, *, in_full: np.ndarray, before: int) -> tuple[SearchStep, ...]:
    """Evaluations on 64 sequences of 512 tokens, or on 8 where a choice was given up early, after a sweep of `before` tokens."""
    n_sequences = np.where(in_full, 64, 8)
    tokens = before + np.cumsum(512 * n_sequences)
    return tuple(
        SearchStep(int(size), float(mean), 0.03 * float(mean) * (64 / n) ** 0.5, int(n), int(read), 2.1e-4 * float(read))
        for size, mean, n, read in zip(sizes_bytes, nats, n_sequences, tokens, strict=True)
    )


@pytest.fixture(scope="session")
def within() -> SearchHistory:
    """A search within 90 MB: one file too large, then ever smaller gains, many of 60 evaluations given up early."""
    rng = np.random.default_rng(11)
    gains = 0.0365 + 0.022 * np.exp(-np.arange(60) / 9) + np.abs(rng.normal(0, 0.004, 60)) * (rng.random(60) > 0.15)
    sizes = rng.integers(88_000_000, 90_000_000, 60)
    nats, sizes[3] = gains * np.exp(rng.normal(0, 0.02, 60)), 94_000_000
    nats[3], nats[7] = 0.021, 0.31
    in_full = (rng.random(60) < 0.7) | (np.arange(60) < 12)
    best = np.minimum.accumulate(np.where(in_full & (sizes <= 90_000_000), nats, np.inf))
    volume = 0.7 + 0.3 * (1 - np.exp(-np.arange(60) / 15))
    course = steps(sizes, nats, in_full=in_full, before=1_572_864)
    return SearchHistory("auto", "docs/search.md", SizeLimit(90_000_000), course, volume, best, forecast(rng), is_finished=True)


def forecast(rng: np.random.Generator) -> Forecast:
    """Sixty random plans and near ones, foretold with an error of 5 % against intervals of ±9 %."""
    true = np.exp(np.concatenate([rng.uniform(np.log(0.03), np.log(2.5), 40), rng.normal(np.log(0.04), 0.06, 20)]))
    predicted = true * np.exp(rng.normal(0.01, 0.05, 60))
    low, high = predicted * 0.91, predicted * 1.1
    coverage = float(((low <= true) & (true <= high)).mean())
    figures = Validation("ridge", 60, spearman=0.987, kendall=0.914, rmse_nats=0.0312, coverage=coverage)
    return Forecast(true, 0.02 * true, predicted, low, high, figures)


@pytest.fixture(scope="session")
def along() -> SearchHistory:
    """A search for the whole front of 45 evaluations that was stopped."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(68_000_000, 240_000_000, 45)
    nats = 3.0 * np.exp(-(sizes - 6.0e7) / 3e7) * np.exp(np.abs(rng.normal(0, 0.2, 45)))
    volume = np.maximum.accumulate(1 - 0.38 * np.exp(-np.arange(45) / 8) - np.abs(rng.normal(0, 0.002, 45)))
    course = steps(sizes, nats, in_full=np.ones(45, dtype=bool), before=0)
    best = np.minimum.accumulate(nats)
    return SearchHistory("nsga2", "Deb et al., IEEE TEC 6 (2), 2002", None, course, volume, best, None, is_finished=False)


@pytest.fixture(scope="session")
def searched(summary: RunSummary, within: SearchHistory, along: SearchHistory) -> RunSummary:
    """Return the run summary after two searches."""
    return replace(summary, courses=(within, along))
