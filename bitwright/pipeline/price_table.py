"""What proxies say of a run's model: each table computed once and kept in the run."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion, is_corrected, measure_distortion
from bitwright.errors import TextError, UserError
from bitwright.objectives import Routing
from bitwright.pipeline.calibration_mix import sequences_by_text
from bitwright.pipeline.long_text import long_text
from bitwright.pipeline.run import PACKED
from bitwright.pipeline.settings import FLOOR
from bitwright.pipeline.workbench import Workbench, timed
from bitwright.predictors import (
    NATS_PROXIES,
    Subject,
    cache_losses,
    completed,
    drop_losses,
    floored_table,
    forced_table,
    importance_error_table,
    limit_drops,
    may_drop,
    proxy_named,
    stored,
    tables_by_text,
    with_cache_losses,
    with_drops,
)
from bitwright.spaces import DROP, Space, has_cache

Table = NDArray[np.float64]
_DROPS, _CACHE = "what dropping costs", "what types of the cache cost"
_SECOND = {"gradient": "gradient-raw", "joint": "gradient", "importance": "weight"}  # a table that is there anyway; "importance" for all others


def subject_of(bench: Workbench, space: Space) -> Subject:
    """What a proxy looks at: the run's model and its calibration text."""
    settings = bench.settings
    return Subject(bench.model, bench.levels, space, bench.texts.calibration, settings.seed, bench.store, bench.progress)


def distortion_of(bench: Workbench, everything: Space) -> Distortion:
    """What every format of `everything` does to the weights."""
    store = bench.store
    if not store.has_array(PACKED):
        with timed(store, "quantize"):
            measured = measure_distortion(everything, bench.levels, progress=bench.progress)
        store.put_array("weight errors", measured.plain)
        store.put_array(PACKED, measured.weighted)  # last: where it is, both are
    return Distortion(store.array("weight errors").astype(np.float64), store.array(PACKED).astype(np.float64))


def priced(bench: Workbench, name: str, *, space: Space, distortion: Distortion) -> Table:
    """The table `(n_units, n_formats)` of the proxy of that name, NaN where a pair is not offered.

    Raises:
        UserError: there is no such proxy, or the model cannot be priced by it.
    """
    key, proxy = f"proxy/{name}", proxy_named(name)
    if not bench.store.has_array(key):
        with timed(bench.store, name, proxy.passes(space).tokens(bench.texts.calibration.n_tokens)):
            table = proxy.price(subject_of(bench, space), distortion)
        bench.store.put_array(key, np.where(space.offered, table, np.nan))
    return bench.store.array(key).astype(np.float64)


def priced_twice(bench: Workbench, name: str, *, space: Space, distortion: Distortion) -> tuple[Table, Table]:
    """The table of that proxy and a second opinion, which costs nothing more, both with a price for every pair that was tried. An expert that
    saw hardly a token has a floor, or is measured; see `floored_table` and `forced_table`.

    Raises:
        UserError: there is no such proxy, or the model cannot be priced by it.
        TextError: the calibration text visits hardly an expert of some layer.
    """
    kept, other = stored(space), _SECOND.get(name, "importance")
    first = priced(bench, name, space=kept, distortion=distortion)
    second = np.where(kept.offered, proxy_named(other).price(subject_of(bench, kept), distortion), np.nan)
    tables = (_whole(bench, proxy, table, space, distortion) for proxy, table in ((name, first), (other, second)))
    rare = (_with_rare(bench, proxy, table, space, distortion, routing=bench.routing) for proxy, table in zip((name, other), tables, strict=True))
    whole, other_whole = rare
    return whole, other_whole


def priced_by_text(bench: Workbench, name: str, *, space: Space, distortion: Distortion) -> list[tuple[Table, Table]]:
    """The same table for each of several calibration texts alone, and for as many sequences drawn from all of them, from what is kept of the mixture;
    nothing where there is one text, or where the proxy of that name keeps nothing by sequence.

    What dropping costs is the mixture's. A text that hardly visits a layer has no floors there.
    """
    kept, texts = stored(space), sequences_by_text(bench.store)
    if not texts:
        return []
    rng, n_sequences = np.random.default_rng(bench.settings.seed), len(bench.texts.calibration.ids)
    drawn = [np.sort(rng.permutation(n_sequences)[: len(rows)]) for rows in texts]
    routings = [*(bench.routing_of(rows) for rows in texts), *(bench.routing for _ in drawn)]
    tables = tables_by_text(name, subject_of(bench, kept), importance_error_table(distortion), [*texts, *drawn])
    found = []
    for table, routing in zip(tables, routings, strict=False):  # there may be none
        whole = _whole(bench, name, np.where(kept.offered, table, np.nan), space, distortion)
        with suppress(TextError):
            whole = _with_rare(bench, name, whole, space, distortion, routing=routing)
        found.append(whole)
    return list(zip(found[: len(texts)], found[len(texts) :], strict=True))


def _whole(bench: Workbench, name: str, table: Table, space: Space, distortion: Distortion) -> Table:
    """A table of what is stored, with a price for every pair that was tried and, where it is in nats, for dropping."""
    completed_table = completed(table, importance_error_table(distortion))
    if not may_drop(space) or name not in NATS_PROXIES:
        return completed_table
    return with_drops(completed_table, space, bench.store.array(_DROPS).astype(np.float64))


def _with_rare(bench: Workbench, name: str, table: Table, space: Space, distortion: Distortion, *, routing: Routing) -> Table:
    """The table with prices for experts that a text with this routing hardly visits, by a floor or by forced routing as the settings say."""
    if bench.settings.rare == FLOOR or name not in NATS_PROXIES or not len(routing.layer):
        return floored_table(table, space, routing)
    tried = stored(replace(space, offered=~np.isnan(distortion.weighted)))
    return forced_table(table, subject_of(bench, tried), routing)


def with_cache_prices(bench: Workbench, weights: Space, tables: tuple[Table, Table], *, space: Space) -> tuple[Table, Table]:
    """Both tables of the `weights` with the rows of the cache, whose types `space` offers; measured once."""
    if not has_cache(space):
        return tables
    if not bench.store.has_array(_CACHE):
        with timed(bench.store, "cache") as passed:
            losses, passed.n_tokens = cache_losses(replace(subject_of(bench, weights), tokens=long_text(bench)), space)
            bench.store.put_array(_CACHE, losses)
    losses, first = bench.store.array(_CACHE).astype(np.float64), tables[0]
    return with_cache_losses(first, losses, like=first), with_cache_losses(tables[1], losses, like=first)


def with_possible_drops(bench: Workbench, space: Space) -> Space:
    """Of a space in which experts may be dropped, the one in which every choice is possible; see `limit_drops`. The run keeps the price.

    Raises:
        UserError: the sensitivity is not in nats, so that it cannot be compared with what is measured; routers choose by more than a softmax.
    """
    if not may_drop(space):
        return space
    if is_corrected(bench.model):
        raise UserError(
            "Experts are dropped where the router's softmax can do without them; this model's routers choose by a correction of each expert, which a "
            "dropped one would keep: leave DROP out."
        )
    name, store = bench.settings.sensitivity, bench.store
    if name not in NATS_PROXIES:
        raise UserError(f"Dropping experts is measured in nats per token, as {', '.join(NATS_PROXIES)} are; '{name}' is not: choose one of them.")
    if not store.has_array(_DROPS):
        with timed(store, "dropping", int(space.offered[:, space.formats.index(DROP)].sum()) * bench.texts.calibration.n_tokens):
            store.put_array(_DROPS, drop_losses(subject_of(bench, space)))
    return limit_drops(space, store.array(_DROPS).astype(np.float64), routing=bench.routing, replacements=bench.levels.replacements)
