"""Sensitivity tables of a run's model by proxy; each is computed once and stored in the run."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion, RowSample, all_rows, is_corrected, sampled_distortion
from bitwright.errors import TextError, UserError
from bitwright.objectives import Routing
from bitwright.pipeline.calibration.long_text import long_text
from bitwright.pipeline.calibration.mixture import sequences_by_text
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.pricing.priced_rows import priced_rows
from bitwright.pipeline.run import PACKED
from bitwright.pipeline.settings import FLOOR
from bitwright.pipeline.workers.sweeping import distortion_by_workers, with_workers
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
_PLAIN, _DROPS, _CACHE = "weight errors", "what dropping costs", "what types of the cache cost"
_SECOND = {"gradient": "gradient-raw", "joint": "gradient", "importance": "weight"}  # a table that exists anyway; "importance" for all others


def subject_of(loaded: LoadedRun, space: Space) -> Subject:
    """Return the input of a proxy: the run's model, packed tensors, space and calibration text."""
    settings = loaded.settings
    sample = priced_rows(loaded, space)
    subject = Subject(loaded.model, loaded.levels, space, loaded.texts.calibration, settings.seed, loaded.store, loaded.progress, sample)
    return with_workers(subject, loaded.workers)


def distortion_of(loaded: LoadedRun, everything: Space, quantized: tuple[Space, Distortion] | None = None) -> Distortion:
    """Return the weight errors, plain and weighted, of every pair in the space `everything`, by the rows that the run prices by. Pairs of a space
    that was `quantized` before have the errors found then.
    """
    store = loaded.store
    if not store.has_array(PACKED):
        rows = _rows(loaded, everything)
        with timed(store, "quantize"):
            measured = _by_rows(loaded, everything, rows) if quantized is None else _completed(loaded, everything, *quantized, rows)
        store.put_array(_PLAIN, measured.plain)
        store.put_array(PACKED, measured.weighted)  # last: where it is, both are
    return Distortion(store.array(_PLAIN).astype(np.float64), store.array(PACKED).astype(np.float64))


def quantized_distortion(loaded: LoadedRun, space: Space) -> Distortion:
    """Quantize every pair of a space, by the rows that the run prices by, and return the weight errors, plain and weighted."""
    return _by_rows(loaded, space, _rows(loaded, space))


def _rows(loaded: LoadedRun, space: Space) -> RowSample:
    return priced_rows(loaded, space) or all_rows(loaded.levels)


def _completed(loaded: LoadedRun, everything: Space, quantized: Space, errors: Distortion, rows: RowSample) -> Distortion:
    """Return the errors of all pairs: those known of a space that was quantized, and those of the other pairs, by the same rows."""
    left = everything.offered & ~quantized.offered
    units = np.flatnonzero(left.any(axis=1))
    rest = replace(everything, units=tuple(everything.units[u] for u in units), size_bits=everything.size_bits[units], offered=left[units])
    found = _by_rows(loaded, rest, rows)
    plain, weighted = errors.plain.copy(), errors.weighted.copy()
    for known, new in ((plain, found.plain), (weighted, found.weighted)):
        known[units] = np.where(left[units], new, known[units])
    return Distortion(plain, weighted)


def _by_rows(loaded: LoadedRun, space: Space, rows: RowSample) -> Distortion:
    if loaded.workers is None:
        return sampled_distortion(space, rows, progress=loaded.progress)
    return distortion_by_workers(space, rows, loaded.workers, progress=loaded.progress)


def priced(loaded: LoadedRun, name: str, *, space: Space, distortion: Distortion) -> Table:
    """Return the table `(n_units, n_formats)` of the proxy of that name, NaN where a pair is not offered.

    Raises:
        UserError: there is no such proxy, or it cannot price this model.
    """
    key, proxy = f"proxy/{name}", proxy_named(name)
    if not loaded.store.has_array(key):
        with timed(loaded.store, name, proxy.passes(space).tokens(loaded.texts.calibration.n_tokens)):
            table = proxy.price(subject_of(loaded, space), distortion)
        loaded.store.put_array(key, np.where(space.offered, table, np.nan))
    return loaded.store.array(key).astype(np.float64)


def priced_twice(loaded: LoadedRun, name: str, *, space: Space, distortion: Distortion) -> tuple[Table, Table]:
    """Return the table of that proxy and that of a second proxy, which costs nothing more, both with a price for every quantized pair. An expert
    with too few calibration tokens gets a floor, or is measured; see `floored_table` and `forced_table`.

    Raises:
        UserError: there is no such proxy, or it cannot price this model.
        TextError: nearly all experts of some layer have too few calibration tokens.
    """
    without_drops, other = stored(space), _SECOND.get(name, "importance")
    first = priced(loaded, name, space=without_drops, distortion=distortion)
    second = np.where(without_drops.offered, proxy_named(other).price(subject_of(loaded, without_drops), distortion), np.nan)
    tables = (_whole(loaded, proxy, table, space, distortion) for proxy, table in ((name, first), (other, second)))
    rare = (_with_rare(loaded, proxy, table, space, distortion, routing=loaded.routing) for proxy, table in zip((name, other), tables, strict=True))
    whole, other_whole = rare
    return whole, other_whole


def priced_by_text(loaded: LoadedRun, name: str, *, space: Space, distortion: Distortion) -> list[tuple[Table, Table]]:
    """Return the proxy's tables for each of several calibration texts alone, and for as many sequences drawn at random from all of them, computed
    from stored results by sequence. Empty if there is one text, or if the proxy stores nothing by sequence.

    The prices of dropped experts are the mixture's. A text with too few tokens for a layer's experts has no floors there.
    """
    without_drops, texts = stored(space), sequences_by_text(loaded.store)
    if not texts:
        return []
    rng, n_sequences = np.random.default_rng(loaded.settings.seed), len(loaded.texts.calibration.ids)
    drawn = [np.sort(rng.permutation(n_sequences)[: len(rows)]) for rows in texts]
    routings = [*(loaded.routing_of(rows) for rows in texts), *(loaded.routing for _ in drawn)]
    tables = tables_by_text(name, subject_of(loaded, without_drops), importance_error_table(distortion), [*texts, *drawn])
    found = []
    for table, routing in zip(tables, routings, strict=False):  # there may be none
        whole = _whole(loaded, name, np.where(without_drops.offered, table, np.nan), space, distortion)
        with suppress(TextError):
            whole = _with_rare(loaded, name, whole, space, distortion, routing=routing)
        found.append(whole)
    return list(zip(found[: len(texts)], found[len(texts) :], strict=True))


def _whole(loaded: LoadedRun, name: str, table: Table, space: Space, distortion: Distortion) -> Table:
    """Complete a table of the weights: add a price for every quantized pair and, if it is in nats, for dropped experts."""
    completed_table = completed(table, importance_error_table(distortion))
    if not may_drop(space) or name not in NATS_PROXIES:
        return completed_table
    return with_drops(completed_table, space, loaded.store.array(_DROPS).astype(np.float64))


def _with_rare(loaded: LoadedRun, name: str, table: Table, space: Space, distortion: Distortion, *, routing: Routing) -> Table:
    """Return the table with prices for experts that have too few tokens in this routing, by a floor or by forced routing as the settings say."""
    if loaded.settings.rare == FLOOR or name not in NATS_PROXIES or not len(routing.layer):
        return floored_table(table, space, routing)
    tried = stored(replace(space, offered=~np.isnan(distortion.weighted)))
    return forced_table(table, subject_of(loaded, tried), routing)


def with_cache_prices(loaded: LoadedRun, weights: Space, tables: tuple[Table, Table], *, space: Space) -> tuple[Table, Table]:
    """Return both tables of the `weights` with rows for the KV cache, whose types `space` offers; their losses are measured once."""
    if not has_cache(space):
        return tables
    if not loaded.store.has_array(_CACHE):
        with timed(loaded.store, "cache") as passed:
            losses, passed.n_tokens = cache_losses(replace(subject_of(loaded, weights), tokens=long_text(loaded)), space)
            loaded.store.put_array(_CACHE, losses)
    losses, first = loaded.store.array(_CACHE).astype(np.float64), tables[0]
    return with_cache_losses(first, losses, like=first), with_cache_losses(tables[1], losses, like=first)


def with_possible_drops(loaded: LoadedRun, space: Space) -> Space:
    """Return the space with dropping limited so that every choice is possible; see `limit_drops`. The run stores the measured losses of dropping.

    Raises:
        UserError: the sensitivity is not in nats and so not comparable with the measured losses, or routers use more than a softmax.
    """
    if not may_drop(space):
        return space
    if is_corrected(loaded.model):
        raise UserError(
            "Experts can be dropped only from routers that choose by their softmax; this model's routers add a correction to each expert's score, "
            "which a dropped one would keep: leave experts out of --structure."
        )
    name, store = loaded.settings.sensitivity, loaded.store
    if name not in NATS_PROXIES:
        raise UserError(f"Dropping experts is measured in nats per token, as {', '.join(NATS_PROXIES)} are; '{name}' is not: choose one of them.")
    if not store.has_array(_DROPS):
        with timed(store, "dropping", int(space.offered[:, space.formats.index(DROP)].sum()) * loaded.texts.calibration.n_tokens):
            store.put_array(_DROPS, drop_losses(subject_of(loaded, space)))
    return limit_drops(space, store.array(_DROPS).astype(np.float64), routing=loaded.routing, replacements=loaded.levels.replacements)
