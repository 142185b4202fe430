"""From a model to its front: which pairs are worth offering, what each is thought to cost, and what the best choices really cost."""

from collections.abc import Collection, Mapping
from collections.abc import Container as Container_
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from bitwright.compress import ARCHITECTURES, Source, dimensions, extremes
from bitwright.engines import Container, target_named
from bitwright.errors import ModelError, UserError
from bitwright.pipeline.extreme_weights import keep_extremes
from bitwright.pipeline.parity import require_parity
from bitwright.pipeline.price_table import distortion_of, priced_by_text, priced_twice, with_cache_prices, with_possible_drops
from bitwright.pipeline.run import Prices, Run, chance_table_key, keep_prices, read_prices, text_table_key
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.workbench import Workbench
from bitwright.predictors import stored
from bitwright.search import Front, hull, nondominated, spread
from bitwright.spaces import (
    DEFAULT_CACHE,
    DEFAULT_CACHE_TYPE,
    Absence,
    AnyCacheTypes,
    Choice,
    Space,
    Unit,
    discover,
    finest_cache_types,
    weight_space,
    with_cache,
    with_cache_choice,
)


def price(bench: Workbench) -> Run:
    """Pack every pair, price those worth offering by the sensitivity that was asked for, and keep it all in the run.

    Raises:
        ModelError: the target is llama.cpp, and computes another model; see `require_parity`.
    """
    require_parity(bench)
    store, settings = bench.store, bench.settings
    if not store.has_array("table"):
        keep_extremes(bench)
        everything = with_possible_drops(bench, whole_space(bench))
        distortion = distortion_of(bench, everything)
        tried = ~np.isnan(distortion.weighted)
        space = everything.narrowed(distortion.worth_offering(everything))
        with_types = with_cache_units(bench, space)
        tables = priced_twice(bench, settings.sensitivity, space=space, distortion=distortion)
        first, second = with_cache_prices(bench, space, tables, space=with_types)
        tried = np.concatenate([tried, with_types.offered[len(tried) :]])
        for i, (alone, by_chance) in enumerate(priced_by_text(bench, settings.sensitivity, space=space, distortion=distortion)):
            store.put_array(text_table_key(i), alone)
            store.put_array(chance_table_key(i), by_chance)
        keep_prices(store, Prices(with_types, tried, first, second, original_bytes(bench)), settings.target)
    return Run(bench.folder, store, settings, read_prices(store))


def uniforms(run: Run) -> dict[str, Choice]:
    """The uniform allocations by name: every unit in one format, or in the next finer one that its rows allow. Formats that most of the
    weights cannot have are left out, nothing is dropped or pruned, and the cache is as fine as the run's prices offer it.
    """
    everything = run.prices.everything
    space = weight_space(stored(everything))
    tried, types = space.offered, finest_cache_types(everything)
    n_weights = np.array([unit.n_weights for unit in space.units])
    kept = np.array([not isinstance(form, Absence) for form in space.formats])
    common = kept & ((n_weights[:, None] * tried).sum(axis=0) > n_weights.sum() / 2)
    named = {f"uniform {form.name}": space.uniform(form) for form, is_common in zip(space.formats, common, strict=True) if is_common}
    return {name: with_cache_choice(everything, choice, types) for name, choice in named.items()}


def front_points(run: Run, n_points: int) -> list[Choice]:
    """`n_points` choices spread evenly over the sizes of the front that searches have measured, or of the predicted one where that has fewer."""
    front = _measured_front(run)
    if len(front.loss) < n_points:
        front = hull(run.prices.space, run.prices.table)
    return [front.choices[i] for i in spread(front, n_points)]


def _measured_front(run: Run) -> Front:
    found = run.evaluated()
    choices = np.array(list(found), dtype=np.int64).reshape(-1, len(run.prices.space.units))
    sizes, loss = run.prices.space.total_bits(choices), np.array(list(found.values()))
    order = np.lexsort((loss, sizes))
    rows = order[nondominated(np.stack([sizes[order].astype(np.float64), loss[order]], axis=1))]
    return Front(choices[rows], sizes[rows], loss[rows])


def with_cache_units(bench: Workbench, space: Space) -> Space:
    """The space with the types of the cache among what is decided, where the settings ask for it.

    A model of latent attention keeps no keys and values by head, so there is nothing to decide.

    Raises:
        UserError: a type that the settings name does not divide the model's heads, or the model has none.
        ModelError: the model does not say its dimensions.
    """
    return cache_units(bench.settings, bench.model.source, space)


def cache_units(settings: Settings, source: Source, space: Space) -> Space:
    """The same for the tensors of `source`, of which no weight is read.

    Raises:
        UserError: see `with_cache_units`.
        ModelError: see there.
    """
    types, architecture = settings.cache, source.architecture
    if types == DEFAULT_CACHE:
        return space
    if ARCHITECTURES[architecture].latent:
        if isinstance(types, AnyCacheTypes):
            return space
        raise UserError(
            f"Types of the cache are for keys and values by head; {architecture} keeps one narrow vector in their place, and {types} cannot be "
            f"measured: leave --cache-types at {DEFAULT_CACHE_TYPE.lower()}."
        )
    shape = dimensions(source)
    keys, values = (sum(shape.key_widths) // shape.key_head, shape.key_head), (sum(shape.value_widths) // shape.value_head, shape.value_head)
    return with_cache(space, types, keys=keys, values=values)


def original_bytes(bench: Workbench) -> int:
    """Bytes of what the target loads with every tensor as it is stored in the source."""
    return bench.container.fixed_bytes(bench.model.source, (), bench.folder)


def whole_space(bench: Workbench) -> Space:
    """Every pair that the menu names and that can be quantized with the importance that is known.

    A unit for which that leaves nothing gets every format of the target that can be. One with weights that are infinite or no numbers, which nothing
    can hold, is not decided about: it stays as it is stored.
    """
    target = target_named(bench.settings.target)
    largest = extremes(bench.model)
    unheld = {name for name, magnitude in largest.items() if not np.isfinite(magnitude)}
    named, full = menu_spaces(bench.settings, bench.model.source, bench.model.pieces, container=bench.container, scratch=bench.folder, unheld=unheld)
    known = np.array([all(bench.levels.knows_importance(tensor) for tensor in unit.tensors) for unit in named.units])
    possible = known[:, None] | ~np.array([form.needs_importance for form in target.formats])  # (n_units, n_formats)
    held = np.array([bench.levels.codec.largest_weight(form) for form in target.formats])  # (n_formats,)
    possible &= np.array([_largest(unit, largest) for unit in named.units])[:, None] <= held
    offered = named.offered & possible
    size_bits = np.where(named.offered, named.size_bits, full.size_bits)
    return replace(full, size_bits=size_bits, offered=np.where(offered.any(axis=1, keepdims=True), offered, full.offered & possible))


def least_space(settings: Settings, source: Source, names: Container_[str], *, container: Container, scratch: Path) -> Space:
    """The space of `menu_spaces` before it is known of which tensors there is an importance: no choice of `whole_space` is smaller than its smallest.

    Raises:
        UserError: see `menu_spaces`, or no format of the menu fits a row of the model.
    """
    target = target_named(settings.target)
    named, full = menu_spaces(settings, source, names, container=container, scratch=scratch)
    wanted = np.array([form.name in settings.formats for form in target.formats])
    if settings.formats and not named.offered[:, wanted].any():
        widths = sorted({tensor.shape[-1] for unit in named.units for tensor in unit.tensors})
        raise UserError(
            f"A menu must fit a tensor; none of {', '.join(settings.formats)} fits this model's rows of {', '.join(map(str, widths[:4]))} weights, "
            f"or is allowed there by {target.name}: name other --formats, or none for all."
        )
    needs = np.array([form.needs_importance for form in target.formats])
    sure = (named.offered & ~needs).any(axis=1, keepdims=True)
    size_bits = np.where(named.offered, named.size_bits, full.size_bits)
    return replace(full, size_bits=size_bits, offered=named.offered | (full.offered & ~needs & ~sure))


def menu_spaces(
    settings: Settings, source: Source, names: Container_[str], *, container: Container, scratch: Path, unheld: Collection[str] = ()
) -> tuple[Space, Space]:
    """The space of a model with the formats of the menu, and with all of the target's: of the matrices of `source`, whose tensors are as the target
    holds them, that are among `names`. Matrices with a tensor of `unheld`, whose weights no format holds, stay as they are stored.

    Raises:
        UserError: what is to be kept is not in the model, or the target cannot keep it.
        ModelError: every matrix has weights that no format holds.
    """
    target = target_named(settings.target)
    matrices = tuple(unit for unit in discover(source.tensors) if all(tensor.name in names for tensor in unit.tensors))
    units = tuple(unit for unit in _decided(matrices, settings.keep) if not any(tensor.name in unheld for tensor in unit.tensors))
    if not units:
        raise ModelError(f"Some matrix must have finite weights to be decided about; none of {source.name} has: repair the model.")
    target.require_keepable(matrices, tuple(unit for unit in matrices if unit not in units))
    decided = [tensor.name for unit in units for tensor in unit.tensors]
    fixed, n_weights = container.fixed_bytes(source, decided, scratch), sum(tensor.n_weights for tensor in source.tensors)
    named, full = (target.space(units, menu=menu, fixed_bytes=fixed, n_weights=n_weights) for menu in (settings.formats, ()))
    return named, full


def _largest(unit: Unit, largest: Mapping[str, float]) -> float:
    """The largest magnitude of a unit's weights where half floats do not hold it, NaN where one is no number, else 0."""
    return float(np.max([largest.get(tensor.name, 0.0) for tensor in unit.tensors], initial=0.0))


def _decided(units: tuple[Unit, ...], keep: tuple[str, ...]) -> tuple[Unit, ...]:
    """The units of which no tensor matches a pattern of `keep`."""
    for pattern in keep:
        if not any(fnmatchcase(tensor.name, pattern) for unit in units for tensor in unit.tensors):
            like = units[0].tensors[0].name
            raise ModelError(f"A pattern of what to keep must match a matrix of the model; '{pattern}' matches none: write it like '{like}'.")
    left = tuple(unit for unit in units if not any(fnmatchcase(tensor.name, pattern) for tensor in unit.tensors for pattern in keep))
    if not left:
        raise ModelError(f"Something must be left to decide about; {', '.join(keep)} keeps every matrix of the model: keep fewer.")
    return left
