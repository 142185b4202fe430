"""Search space of a run: the pairs worth offering, their sensitivities, uniform allocations and points of the front."""

from collections.abc import Callable, Collection, Mapping
from collections.abc import Container as Container_
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from bitwright.compress import ARCHITECTURES, Source, dimensions, extremes
from bitwright.engines import Container, target_named
from bitwright.errors import ModelError, UserError
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.pricing.chances import worth_trying
from bitwright.pipeline.pricing.original_model import require_parity, store_extremes
from bitwright.pipeline.pricing.price_table import distortion_of, priced_by_text, priced_twice, subject_of, with_cache_prices, with_possible_drops
from bitwright.pipeline.pricing.priced_rows import store_price_errors
from bitwright.pipeline.run import Run, chance_table_key, store_prices, stored_run, text_table_key
from bitwright.pipeline.settings import Settings
from bitwright.predictors import stored
from bitwright.search import Front, hull, nondominated, spread
from bitwright.spaces import (
    DEFAULT_CACHE,
    DEFAULT_CACHE_TYPE,
    Absence,
    AnyCacheTypes,
    Choice,
    Space,
    Target,
    Tensor,
    Unit,
    discover,
    finest_cache_types,
    role_of,
    weight_space,
    with_cache,
    with_cache_choice,
)

_UNIFORMS_MEASURED = 2
_MUCH_WORSE = 3  # times the price of the largest, which 0.8 bits fewer make at 6 dB a bit


def price(loaded: LoadedRun, least_bytes: int = 0) -> Run:
    """Quantize every pair, price those worth offering with the run's sensitivity, and store everything in the run. With `least_bytes`, slow formats
    that only smaller files could use are left out (`chances.py`).

    Raises:
        ModelError: the target's engine computes something else than torch; see `require_parity`.
    """
    require_parity(loaded)
    store, settings = loaded.store, loaded.settings
    if not store.has_array("table"):
        store_extremes(loaded)
        everything, quantized = worth_trying(loaded, with_possible_drops(loaded, whole_space(loaded)), least_bytes)
        distortion = distortion_of(loaded, everything, quantized)
        tried = ~np.isnan(distortion.weighted)
        space = everything.narrowed(distortion.worth_offering(everything))
        with_types = with_cache_units(loaded, space)
        tables = priced_twice(loaded, settings.sensitivity, space=space, distortion=distortion)
        store_price_errors(loaded, subject_of(loaded, stored(space)))
        first, second = with_cache_prices(loaded, space, tables, space=with_types)
        tried = np.concatenate([tried, with_types.offered[len(tried) :]])
        for i, (alone, by_chance) in enumerate(priced_by_text(loaded, settings.sensitivity, space=space, distortion=distortion)):
            store.put_array(text_table_key(i), alone)
            store.put_array(chance_table_key(i), by_chance)
        found = Run(
            loaded.folder,
            store,
            settings,
            with_types,
            tried=tried,
            table=first,
            second_table=second,
            original_bytes=original_bytes(loaded),
        )
        store_prices(found)
    return stored_run(loaded.folder, store, settings)


def uniforms(run: Run) -> dict[str, Choice]:
    """Return the uniform allocations by name: every unit in one format, or in the next finer one that its rows allow. Formats that most of the
    weights cannot have are left out, nothing is dropped or pruned, and the KV cache has its finest offered types.
    """
    everything = run.everything
    space = weight_space(stored(everything))
    tried, types = space.offered, finest_cache_types(everything)
    n_weights = np.array([unit.n_weights for unit in space.units])
    quantized = np.array([not isinstance(form, Absence) for form in space.formats])
    common = quantized & ((n_weights[:, None] * tried).sum(axis=0) > n_weights.sum() / 2)
    named = {f"uniform {form.name}": space.uniform(form) for form, is_common in zip(space.formats, common, strict=True) if is_common}
    return {name: with_cache_choice(everything, choice, types) for name, choice in named.items()}


def largest_uniforms(run: Run, fits: Callable[[Choice], bool]) -> dict[str, Choice]:
    """Return the two largest uniform allocations that `fits` accepts, by name, the largest first. One that another is not larger than and priced
    below is left out, and so is a second one that is priced at more than three times the first: they would be measured only to lose.
    """
    size = run.space.total_bytes
    fitting = {name: choice for name, choice in uniforms(run).items() if fits(choice)}
    prices = {name: (size(choice), run.summed(choice)) for name, choice in fitting.items()}
    worth = [name for name, (n_bytes, price) in prices.items() if not any(n <= n_bytes and p < price for n, p in prices.values())]
    largest = sorted(worth, key=lambda name: (-prices[name][0], prices[name][1]))
    return {name: fitting[name] for name in largest[:_UNIFORMS_MEASURED] if prices[name][1] <= _MUCH_WORSE * prices[largest[0]][1]}


def front_points(run: Run, n_points: int) -> list[Choice]:
    """Return `n_points` choices spread evenly over the sizes of the measured front, or of the predicted front if the measured one has fewer."""
    front = _measured_front(run)
    if len(front.loss) < n_points:
        front = hull(run.space, run.table)
    return [front.choices[i] for i in spread(front, n_points)]


def _measured_front(run: Run) -> Front:
    found = run.evaluated()
    choices = np.array(list(found), dtype=np.int64).reshape(-1, len(run.space.units))
    sizes, loss = run.space.total_bits(choices), np.array(list(found.values()))
    order = np.lexsort((loss, sizes))
    rows = order[nondominated(np.stack([sizes[order].astype(np.float64), loss[order]], axis=1))]
    return Front(choices[rows], sizes[rows], loss[rows])


def with_cache_units(loaded: LoadedRun, space: Space) -> Space:
    """Return the space with units for the KV cache types, if the settings ask for them.

    Latent attention has no keys and values by head, so its models get no such units.

    Raises:
        UserError: a cache type does not divide the model's heads, or the model caches no keys and values by head.
        ModelError: the model's metadata lacks its dimensions.
    """
    return cache_units(loaded.settings, loaded.model.source, space)


def cache_units(settings: Settings, source: Source, space: Space) -> Space:
    """Return the space with units for the KV cache types, from the metadata of `source` without reading weights.

    Raises:
        UserError: see `with_cache_units`.
        ModelError: see there.
    """
    types, architecture = settings.cache, source.architecture
    if types == DEFAULT_CACHE:
        return space
    if architecture in ARCHITECTURES and ARCHITECTURES[architecture].latent:
        if isinstance(types, AnyCacheTypes):
            return space
        raise UserError(
            f"Cache types are for keys and values by head; {architecture} caches one latent vector in their place, and {types} cannot be "
            f"measured: leave --cache-types at {DEFAULT_CACHE_TYPE.lower()}."
        )
    shape = dimensions(source)
    keys, values = (sum(shape.key_widths) // shape.key_head, shape.key_head), (sum(shape.value_widths) // shape.value_head, shape.value_head)
    return with_cache(space, types, keys=keys, values=values)


def original_bytes(loaded: LoadedRun) -> int:
    """Return the bytes of the target's file with every tensor as it is stored in the source."""
    return loaded.container.fixed_bytes(loaded.model.source, (), loaded.folder)


def whole_space(loaded: LoadedRun) -> Space:
    """Return the space of every pair that the menu names and that can be quantized with the available importance.

    A unit left without a format gets every possible format of the target. A unit with infinite or NaN weights is not part of the space and stays
    unquantized.
    """
    target = _offering(loaded.settings)
    largest = extremes(loaded.model)
    unheld = {name for name, magnitude in largest.items() if not np.isfinite(magnitude)}
    named, full = menu_spaces(
        loaded.settings, loaded.model.source, loaded.model.pieces, container=loaded.container, scratch=loaded.folder, unheld=unheld
    )
    known = np.array([all(loaded.levels.knows_importance(tensor) for tensor in unit.tensors) for unit in named.units])
    possible = known[:, None] | ~np.array([form.needs_importance for form in target.formats])  # (n_units, n_formats)
    held = np.array([loaded.levels.codec.largest_weight(form) for form in target.formats])  # (n_formats,)
    possible &= np.array([_largest(unit, largest) for unit in named.units])[:, None] <= held
    offered = named.offered & possible
    size_bits = np.where(named.offered, named.size_bits, full.size_bits)
    return replace(full, size_bits=size_bits, offered=np.where(offered.any(axis=1, keepdims=True), offered, full.offered & possible))


def lower_bound_space(settings: Settings, source: Source, names: Container_[str], *, container: Container, scratch: Path) -> Space:
    """Return a space whose smallest choice is a lower bound of that of `whole_space`, before it is known which tensors have an importance.

    Raises:
        UserError: see `menu_spaces`, or no format of the menu fits a row of the model.
    """
    target = _offering(settings)
    named, full = menu_spaces(settings, source, names, container=container, scratch=scratch)
    wanted = np.array([form.name in settings.menu for form in target.formats])
    if settings.menu and not named.offered[:, wanted].any():
        widths = sorted({tensor.shape[-1] for unit in named.units for tensor in unit.tensors})
        raise UserError(
            f"A menu must fit a tensor; none of {', '.join(settings.menu)} fits this model's rows of {', '.join(map(str, widths[:4]))} weights, "
            f"or is allowed there by {target.name}: name other --formats, or none for all."
        )
    for form, is_wanted, offered in zip(target.formats, wanted, named.offered.T, strict=True):
        if is_wanted and form.condition and not offered.any():
            raise UserError(
                f"A format must fit a matrix of the model, and for {form.name} {form.condition}; none here does: take it out of --formats."
            )
    needs = np.array([form.needs_importance for form in target.formats])
    sure = (named.offered & ~needs).any(axis=1, keepdims=True)
    size_bits = np.where(named.offered, named.size_bits, full.size_bits)
    return replace(full, size_bits=size_bits, offered=named.offered | (full.offered & ~needs & ~sure))


def menu_spaces(
    settings: Settings, source: Source, names: Container_[str], *, container: Container, scratch: Path, unheld: Collection[str] = ()
) -> tuple[Space, Space]:
    """Return the space with the menu's formats, and that with all of the target's formats. Both have the matrices of `source` among `names`, laid out
    as the target holds them. Matrices with a tensor in `unheld`, whose weights no format can hold, stay unquantized.

    Raises:
        UserError: a pattern of `skip` matches no matrix, or the target cannot leave it unquantized.
        ModelError: every matrix has weights that no format can hold.
    """
    target = _offering(settings)
    matrices = tuple(unit for unit in discover(source.tensors) if all(tensor.name in names for tensor in unit.tensors))
    units = tuple(unit for unit in _decided(matrices, settings.skip) if not any(tensor.name in unheld for tensor in unit.tensors))
    if not units:
        raise ModelError(f"A model needs a matrix with finite weights to quantize; {source.name} has none: repair the model.")
    target.require_keepable(matrices, tuple(unit for unit in matrices if unit not in units))
    decided = [tensor.name for unit in units for tensor in unit.tensors]
    fixed, n_weights = container.fixed_bytes(source, decided, scratch), sum(tensor.n_weights for tensor in source.tensors)
    named, full = (target.space(units, menu=menu, fixed_bytes=fixed, n_weights=n_weights) for menu in (settings.menu, ()))
    return named, full


def _offering(settings: Settings) -> Target:
    """Return the target with the formats that the menu names beside those that it lists."""
    return target_named(settings.target).with_made(settings.menu)


def _largest(unit: Unit, largest: Mapping[str, float]) -> float:
    """Return the largest magnitude of a unit's weights if half precision cannot hold it, NaN if a weight is NaN, else 0."""
    return float(np.max([largest.get(tensor.name, 0.0) for tensor in unit.tensors], initial=0.0))


def _decided(units: tuple[Unit, ...], skip: tuple[str, ...]) -> tuple[Unit, ...]:
    """Return the units of which no tensor matches a pattern of `skip`, by its name or by its role."""
    for pattern in skip:
        if not any(_matches(tensor, pattern) for unit in units for tensor in unit.tensors):
            like = units[0].tensors[0].name
            raise ModelError(f"A pattern of --skip must match a matrix of the model; '{pattern}' matches none: write it like '{like}'.")
    left = tuple(unit for unit in units if not any(_matches(tensor, pattern) for tensor in unit.tensors for pattern in skip))
    if not left:
        raise ModelError(f"A matrix must be left to quantize; {', '.join(skip)} leaves every matrix of the model unquantized: give fewer patterns.")
    return left


def _matches(tensor: Tensor, pattern: str) -> bool:
    return fnmatchcase(tensor.name, pattern) or fnmatchcase(role_of(tensor), pattern)
