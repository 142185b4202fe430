"""Tests of `benchmarks/published_tables` on small tables made here; none is a measured one."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.published_tables.__main__ import main, print_assignment, print_bytes, print_prior, print_whole
from benchmarks.published_tables.assignment import contest, instance
from benchmarks.published_tables.byte_maps import ByteMap, byte_map
from benchmarks.published_tables.greedy_assigner import greedy_choice
from benchmarks.published_tables.kinship import kinship, siblings
from benchmarks.published_tables.left_out import atlas, chosen_pairs, judged
from benchmarks.published_tables.links import Question, coverage, kriging, mean_curve, sum_alone
from benchmarks.published_tables.priors import learned, prior
from benchmarks.published_tables.tables import MAINLINE, Published, read_tables
from bitwright.errors import UserError
from bitwright.predictors import summed
from bitwright.predictors.sensitivity.names.published_models import parsed
from bitwright.search import solve

ROLES = {"attn_q": (64, 256), "ffn_down": (256, 512), "ffn_up": (512, 256)}
SLOPES = np.linspace(-6.0, 1.0, len(MAINLINE))  # logarithms of the made-up curve


def write_model(folder: Path, seed: int, *, n_layers: int = 3) -> None:
    """Write the three tables of a made-up model: its curve is stretched and moved, its last blocks are the most sensitive."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    kind = np.random.default_rng(1000 + n_layers)  # models of one size are siblings
    logs = kind.normal() + 0.05 * rng.normal() + (1 + 0.1 * kind.normal()) * SLOPES
    rows = [
        ("QTYPE", "group0"),
        ("bf16", "0"),
        ("iq1_s_r4", "9.0"),
        ("iq2_bn", "404"),
        *((f, f"{np.exp(v):.6g}") for f, v in zip(MAINLINE, logs, strict=True)),
    ]
    _write(folder / "kld_whole_model.csv", rows)
    shapes = {f"blk.{layer}.{role}.weight": shape for layer in range(n_layers) for role, shape in ROLES.items()}
    singles = [f"{0.01 * (layer + 1) * (1 + place) * np.exp(0.01 * rng.normal()):.6g}" for layer in range(n_layers) for place in range(len(ROLES))]
    _write(folder / "kld_by_tensor.csv", [("QTYPE", *shapes), ("iq1_bn", *("5" for _ in singles)), ("iq1_s_r4", *singles)])
    tensors = [(name, f"{row}x{n}", str(n * row), f"q8_0:{n * row // 32 * 34}", f"iq4_k:{n * row}") for name, (n, row) in shapes.items()]
    with gzip.open(folder / "tensors.csv.gz", "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("tensor", "shape (row length first)", "elements", "q8_0", "iq4_k"), *tensors])


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Published, ...]:
    """Six made-up models of three sizes."""
    folder = tmp_path_factory.mktemp("tables")
    for seed in range(6):
        write_model(folder / f"model-{seed}", seed, n_layers=3 + 2 * (seed // 2))
    return read_tables(folder)


def test_tables_leave_out_what_was_not_measured(models: tuple[Published, ...]) -> None:
    assert [model.name for model in models] == [f"model-{seed}" for seed in range(6)]
    assert set(models[0].whole) == {*MAINLINE, "iq1_s_r4"}
    assert models[0].reference == "iq1_s_r4"
    assert models[0].shapes["blk.1.attn_q.weight"] == (64, 256)
    assert models[0].roles == {f"{role}.weight" for role in ROLES}
    assert (models[0].n_layers, models[0].n_weights) == (3, 3 * (64 * 256 + 2 * 256 * 512))


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has none: give the folder that holds them"):
        read_tables(tmp_path)


def test_byte_maps_count_equal_sizes(models: tuple[Published, ...]) -> None:
    assert byte_map(models[0]) == ByteMap(compared=9, equal=9, replaced=0, rows=0)


def test_byte_maps_see_a_wrong_size_and_a_replaced_type(tmp_path: Path) -> None:
    write_model(tmp_path / "wrong", 0)
    with gzip.open(tmp_path / "wrong" / "tensors.csv.gz", "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [
                ("tensor", "shape", "elements", "q4_K"),
                ("blk.0.a.weight", "96x2", "192", "q8_0:204"),  # 96 is no multiple of 256
                ("blk.0.b.weight", "256x2", "512", "q8_0:544"),
                ("blk.0.c.weight", "256x2", "512", "q4_k:289"),
                ("blk.0.norm.weight", "256", "256", "f32:1024"),
            ]
        )
    assert byte_map(read_tables(tmp_path)[0]) == ByteMap(compared=4, equal=3, replaced=2, rows=1)


@given(budget=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_the_greedy_choice_fits_and_is_no_better_than_the_exact_one(models: tuple[Published, ...], budget: float, seed: int) -> None:
    space, _ = instance(models[0])
    table = np.random.default_rng(seed).random(space.offered.shape)
    low, high = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    budget_bits = round(low + budget * (high - low))
    found = greedy_choice(space, table, budget_bits)
    assert space.total_bits(found) <= budget_bits
    assert space.offered[np.arange(len(found)), found].all()
    assert summed(table, solve(space, table, budget_bits).choice) <= summed(table, found) * (1 + 1e-9)


def test_the_greedy_choice_follows_damage_per_byte(models: tuple[Published, ...]) -> None:
    space, table = instance(models[0])
    largest = int(space.total_bits(space.largest()))
    assert np.array_equal(greedy_choice(space, table, largest), space.largest())
    fine, next_ = ([form.name for form in space.formats].index(name) for name in ("Q8_0", "Q6_K"))
    least = int(np.argmin((table[:, next_] - table[:, fine]) / (space.size_bits[:, fine] - space.size_bits[:, next_])))
    changed = np.flatnonzero(greedy_choice(space, table, largest - 1) != space.largest())
    assert changed.tolist() == [least]


def test_the_exact_solver_never_loses(models: tuple[Published, ...]) -> None:
    found = contest(models[1], 4)
    assert found.n_lost == 0
    assert len(found.ratios) == 4


def test_kinship_is_one_for_siblings_and_falls_with_size(models: tuple[Published, ...]) -> None:
    kin = kinship(models)
    assert (kin[0, 0], kin[0, 1]) == (1.0, pytest.approx(0.8))
    assert 0.8 > kin[0, 2] > kin[0, 4]
    assert np.linalg.eigvalsh(kin).min() > -1e-12
    assert siblings(models)[0].tolist() == [True, True, False, False, False, False]


def question(points: list[int], logs: list[float], *, spread: float = 0.1) -> Question:
    """Return a question with five stretched curves of ten types, and singles in the last type that add up to 2."""
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(5, 1)) + (1 + spread * rng.normal(size=(5, 1))) * np.linspace(-5, 0, 10)
    return Question(curves, np.eye(5), np.full(5, 0.3), np.array(points), np.array(logs), 2.0, 9)


def test_the_mean_curve_passes_through_the_measured_types() -> None:
    asked = question([2, 7], [-3.0, -0.5])
    assert mean_curve(asked).curve[[2, 7]] == pytest.approx([-3.0, -0.5])
    moved = mean_curve(question([4], [-1.0])).curve
    assert moved[4] == pytest.approx(-1.0)
    assert np.diff(moved) == pytest.approx(np.diff(asked.curves.mean(axis=0)))


def test_coverage_is_a_saturating_function_of_the_sum() -> None:
    sums = np.exp(sum_alone(question([], [])).curve)
    assert sums[9] == pytest.approx(2.0)
    one = np.exp(coverage(question([9], [np.log(0.7)])).curve)
    assert one == pytest.approx(0.7 * -np.expm1(-sums) / -np.expm1(-2.0))
    true = np.log(3.0 * -np.expm1(-1.7 * sums))
    assert coverage(question([3, 8], true[[3, 8]].tolist())).curve == pytest.approx(true, abs=1e-6)


def test_kriging_follows_the_directions_in_which_other_models_differ() -> None:
    asked = question([2, 7], [0.0, 0.0], spread=0.3)
    stretched = 0.3 + 1.15 * np.linspace(-5, 0, 10)
    found = kriging(question([2, 7], stretched[[2, 7]].tolist(), spread=0.3))
    assert found.curve == pytest.approx(stretched, abs=0.1)
    assert (found.deviation >= 0.1).all()
    assert found.deviation[5] < found.deviation[0]
    assert kriging(asked).deviation == pytest.approx(found.deviation)  # known before anything is measured


def test_kriging_conditions_like_the_full_gaussian_process() -> None:
    asked = question([2, 7], [-2.0, -0.5], spread=0.3)
    points, level = asked.points, float(asked.at_points.mean())
    moved = asked.curves - asked.curves[:, points].mean(axis=1, keepdims=True)
    mean = moved.mean(axis=0)
    excess = moved - mean
    types = excess.T @ excess / 5
    kin = np.block([[asked.among, asked.to[:, None]], [asked.to[None], np.ones((1, 1))]])
    full = np.kron(kin, types)
    known = np.r_[np.arange(50), 50 + points]
    values = np.r_[excess.ravel(), asked.at_points - level - mean[points]]
    weights = np.linalg.solve(full[np.ix_(known, known)] + 0.01 * np.eye(len(known)), full[known, 50:])
    assert kriging(asked).curve == pytest.approx(level + mean + weights.T @ values)
    assert kriging(asked).deviation ** 2 == pytest.approx(np.diag(full[50:, 50:] - weights.T @ full[known, 50:]) + 0.01)


def test_left_out_models_of_one_kind_are_predicted(models: tuple[Published, ...]) -> None:
    known = atlas(models)
    found = judged(known, kriging, [("q6_K", "iq3_xxs")] * len(models))
    assert found.within == 1.0
    assert len(found.errors) == len(models) * (len(MAINLINE) - 2)
    assert judged(known, sum_alone, [()] * len(models)).within < 1.0
    assert all(pair[0] in known.types and len(pair) == 2 for pair in chosen_pairs(known, kriging))


def test_singles_in_a_type_without_a_curve_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model", 0)
    text = (tmp_path / "model" / "kld_by_tensor.csv").read_text(encoding="utf-8")
    (tmp_path / "model" / "kld_by_tensor.csv").write_text(text.replace("iq1_s_r4", "iq7_k"), encoding="utf-8")
    with pytest.raises(UserError, match="iq7_k of model is not"):
        atlas(read_tables(tmp_path))


def test_the_prior_ranks_the_tensors_of_a_model_left_out(models: tuple[Published, ...]) -> None:
    known = tuple(learned(model) for model in models)
    for model, published in enumerate(models):
        guess = prior(models, model, [], of=known)
        assert scipy.stats.spearmanr(guess, list(published.singles.values()))[0] > 0.9


def test_what_the_package_learns_from_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "tables" / "model", 0)
    monkeypatch.setattr("sys.argv", ["", str(tmp_path / "tables"), "--write", str(tmp_path / "learned.json")])
    main()
    (model,) = parsed((tmp_path / "learned.json").read_text(encoding="utf-8"))
    assert model.name == "model"
    assert model.family.roles == frozenset(ROLES)
    assert np.diff(model.by_role["attn_q"])[4] > 0  # the last blocks are the most sensitive


@pytest.mark.slow
def test_every_part_prints_a_line_for_each_model(models: tuple[Published, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for part in (print_bytes, print_assignment, print_whole, print_prior):
        part(models, 2)
        printed = capsys.readouterr().out
        assert all(model.name in printed for model in models)
        assert "nan" not in printed
