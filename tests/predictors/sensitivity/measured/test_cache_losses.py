from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, choice_loader, load, quantized_cache, swapping
from bitwright.engines import LLAMA_CPP
from bitwright.objectives import Reference, Store, Tokens
from bitwright.predictors import Subject, cache_losses, with_cache_losses, with_cache_steps
from bitwright.progress import Silent
from bitwright.spaces import ANY_CACHE, CacheTypes, Space, chosen_cache, with_cache, with_cache_choice
from tests.measuring import Divergence, cache_divergence, levels_of, random_tokens, space_of, weights_of

TOKENS = random_tokens(3, 24)


@pytest.fixture(scope="module")
def model(llama_64: Path) -> Model:
    return load(str(llama_64))


@pytest.fixture(scope="module")
def weights(model: Model) -> Space:
    return space_of(model, ["Q8_0", "Q4_0"])


@pytest.fixture(scope="module")
def space(weights: Space) -> Space:
    return with_cache(weights, ANY_CACHE, keys=(4, 64), values=(4, 64))


@pytest.fixture
def subject(model: Model, weights: Space, tmp_path: Path) -> Subject:
    return Subject(model, levels_of(model, tmp_path), weights, TOKENS, 0, Store(tmp_path / "run.sqlite"), Silent())


def test_each_type_is_measured_alone(subject: Subject, space: Space) -> None:
    losses, n_tokens = cache_losses(subject, space)
    names = [form.name for form in space.formats]
    assert (np.isfinite(losses) == space.offered[-2:]).all()
    assert (losses[:, names.index("F16")] == 0).all()
    for row in losses:
        assert 0 < row[names.index("Q8_0")] < row[names.index("Q5_0")] < row[names.index("Q4_0")]
    assert n_tokens == (int(space.offered[-2:].sum()) - 2 + 1) * TOKENS.n_tokens
    assert not np.allclose(losses[0, space.offered[-1]][1:], losses[1, space.offered[-1]][1:])
    again, _ = cache_losses(subject, space)
    np.testing.assert_array_equal(again, losses)


def test_a_divergence_is_known_at_each_token(subject: Subject, tmp_path: Path) -> None:
    model, types = subject.model, CacheTypes("Q4_0", "Q5_1")
    reference = Reference(model, TOKENS, scratch=tmp_path, progress=Silent())
    nats = cache_divergence(model, types, reference)
    assert nats.shape == TOKENS.ids.shape
    space = with_cache(subject.space, ANY_CACHE, keys=(4, 64), values=(4, 64))
    assert nats.mean() == pytest.approx(Divergence(model, subject.levels, space=space, reference=reference).of_cache(types))
    short = Reference(model, Tokens(TOKENS.ids[:, :8], ""), scratch=tmp_path, progress=Silent())
    np.testing.assert_allclose(cache_divergence(model, types, short), nats[:, :8], atol=1e-5)  # what follows a token changes nothing


def test_a_choice_is_measured_with_its_cache(subject: Subject, space: Space, weights: Space, tmp_path: Path) -> None:
    model = subject.model
    reference = Reference(model, TOKENS, scratch=tmp_path, progress=Silent())
    divergence, before = Divergence(model, subject.levels, space=space, reference=reference), weights_of(model)
    plain = weights.uniform(LLAMA_CPP.format("Q8_0"))
    types = CacheTypes("Q4_0", "Q5_1")
    rounded = divergence(with_cache_choice(space, plain, types)).nats_per_token
    assert rounded > divergence(with_cache_choice(space, plain, CacheTypes())).nats_per_token
    with quantized_cache(model, types):
        alone = Divergence(model, subject.levels, space=weights, reference=reference)(plain).nats_per_token
    assert rounded == pytest.approx(alone)
    with swapping(model) as swapper:
        put = choice_loader(swapper, model, subject.levels, space)
        put(with_cache_choice(space, plain, types))
        swapped_in = Divergence(model, subject.levels, space=weights, reference=reference).with_weights({})
        put(with_cache_choice(space, plain, CacheTypes()))
        assert Divergence(model, subject.levels, space=weights, reference=reference).with_weights({}) < swapped_in
        put(with_cache_choice(space, plain, types))
        swapper.restore()
        assert Divergence(model, subject.levels, space=weights, reference=reference).with_weights({}) == pytest.approx(0, abs=1e-6)
    assert swapped_in == pytest.approx(rounded, rel=1e-4)
    assert all((weight == before[name]).all() for name, weight in weights_of(model).items())


def test_rows_of_the_cache_are_in_the_units_of_the_table(space: Space, weights: Space) -> None:
    first = np.where(weights.offered, 0.5, np.nan)
    losses = np.where(space.offered[-2:], 0.25, np.nan)
    np.testing.assert_array_equal(with_cache_losses(first, losses, like=first)[-2:], losses)
    np.testing.assert_allclose(with_cache_losses(100 * first, losses, like=first)[-2:], 100 * losses)
    table = with_cache_losses(first, losses * np.arange(len(space.formats)), like=first)
    choice = with_cache_choice(space, weights.smallest(), CacheTypes("Q8_0", "Q4_0"))
    slopes = with_cache_steps(np.zeros(weights.offered.shape), choice, table=table, space=space)
    assert slopes.shape == space.offered.shape
    assert (slopes[np.arange(len(choice)), choice] == 0).all()
    assert chosen_cache(space, choice) == CacheTypes("Q8_0", "Q4_0")
    names = [form.name for form in space.formats]
    assert slopes[-2, names.index("F16")] == pytest.approx(0.25 * (names.index("F16") - names.index("Q8_0")))
