"""Validate a run before any weight of its model is read. All such checks are made here.

Checks run from cheap to expensive: the options, then files and libraries, then the model's headers. Which tensors have an importance is known only
after the weights and texts are read, and so is whether the few formats that need an importance matrix are possible. The smallest file computed here
is therefore a lower bound.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from math import inf
from pathlib import Path
from typing import TypeVar

import numpy as np

from bitwright.compress import Headers, Outline, junctions, open_headers, read_imatrix
from bitwright.engines import Engine, engine_named
from bitwright.errors import UserError
from bitwright.objectives import (
    CostObjective,
    NamedObjective,
    Preparation,
    Shape,
    given_texts,
    is_local,
    readable_store,
    require_datasets,
    require_first_token,
    require_readable,
)
from bitwright.pipeline.calibration.mixture import require_share, shares_in, shares_of
from bitwright.pipeline.finishing.steps import calibrating, moving, step_named
from bitwright.pipeline.loaded_run import require_device
from bitwright.pipeline.planning.cost_limits import Conditions
from bitwright.pipeline.planning.costs import require_countable
from bitwright.pipeline.planning.size_limits import BudgetOrMemory, Original, bound_space, require_needed
from bitwright.pipeline.pricing.run_space import cache_units, lower_bound_space, menu_spaces
from bitwright.pipeline.results import require_folder
from bitwright.pipeline.run import DATABASE
from bitwright.pipeline.searching.run_search import require_limits_taken, require_suited
from bitwright.pipeline.searching.search import Search
from bitwright.pipeline.settings import SELF, Settings
from bitwright.pipeline.structured_fit import require_offerable
from bitwright.progress import Progress, Silent
from bitwright.search import solve
from bitwright.spaces import DEFAULT_CACHE, Space, uncut

T = TypeVar("T")


def require_fittable(
    settings: Settings,
    out: Path,
    *,
    limit: BudgetOrMemory,
    by: Search,
    conditions: Conditions,
    engine_python: str,
    device: str,
    progress: Progress | None = None,
) -> None:
    """Raise if a fit cannot succeed; see `require_searchable`.

    Raises:
        UserError: see there; the original is already within the limit, no file is, the target cannot be written, or no Python runs its engine.
    """
    require_writable_for(settings.target, engine_python)
    require_limits_taken(by.method, conditions.at_most)
    outline = require_searchable(settings, out, by=by, conditions=conditions, device=device, progress=progress)
    for_original = Original(settings.model, settings.target, _original_bytes(settings, outline.most))
    require_needed(limit, for_original, n_weights=_n_weights(settings, outline.most))
    if settings.taken:
        return  # parts taken away reach below the smallest file of formats
    served, size_bytes = bound_space(space_of(settings, outline.least), limit, for_original)
    solve(served, np.zeros(served.offered.shape), 8 * size_bytes)


def require_writable_for(target: str, engine_python: str) -> None:
    """Raise if no finished model can be written and checked for this target here.

    Raises:
        PlanError: no engine has this target.
        LibraryError: a package is missing.
        UserError: `engine_python` cannot run the engine.
    """
    engine = engine_named(target)
    engine.require_writable()
    engine.require_python(engine_python)


def require_searchable(
    settings: Settings, out: Path, *, by: Search, conditions: Conditions, device: str, progress: Progress | None = None
) -> Outline:
    """Return the headers of the model, after raising if the search cannot succeed; a model that must be converted first is, with its progress.

    Raises:
        UserError: a device, output, text, library or model cannot be used; parts are to be taken away that cannot be; a cost cannot be computed;
            sequences are longer than the model's context, or than a sliding window that the engine ignores; no format of the menu fits a tensor; the
            method, an objective or a step needs another model; the folder has a run with other settings.
    """
    costs = [objective for objective in by.objectives if isinstance(objective, CostObjective)]
    require_countable([*(ceiling.objective for ceiling in conditions.at_most), *costs], conditions.device, settings.target)
    require_folder(out)
    require_device(device)
    require_texts(settings.calibration, settings.held_out)
    require_resumable(settings.on_device(device), out)
    view = engine_named(settings.target).view
    view.prepare(settings.model, progress or Silent())
    outline = open_headers(settings.model, view)
    require_lengths(outline, settings.sequence_length, max(settings.sequence_length, _cache_length(settings)), settings.target)
    require_sequences(outline, settings.calibration, settings.held_out, settings.shape, column=settings.text_column)
    if settings.imatrix:
        read_imatrix(Path(settings.imatrix), outline.least.tensors)
    require_offerable(settings.engine, settings.engine.held(outline.least), settings.structure, by, conditions, method=settings.structure_method)
    require_suited(by.method, space_of(settings, outline.least))
    require_routers(outline, by.objectives, settings.steps)
    require_movable(settings.engine, outline, settings.steps)
    return outline


def require_resumable(settings: Settings, out: Path) -> None:
    """Raise if `out` has a run with other settings, as far as they are known without the model.

    Raises:
        RunError: see above, or its database cannot be read.
    """
    if (out / DATABASE).exists():
        with closing(readable_store(out / DATABASE)) as store:
            store.require_settings(settings.identity_apart, among=settings.identity_apart)


def require_routers(outline: Outline, objectives: Iterable[NamedObjective], steps: Sequence[str]) -> None:
    """Raise if objectives or steps need a mixture of experts, and the model is none.

    Raises:
        UserError: see above.
    """
    needing = [f"The objective {one.name}" for one in objectives if isinstance(one, Preparation) and one.needs_routers]
    needing += [f"The step {step_named(words).name}" for words in calibrating(steps)]
    if needing and not outline.has_routers:
        raise UserError(f"{needing[0]} needs a mixture of experts; {outline.least.name} has no routers: leave it out, or choose another model.")


def require_movable(engine: Engine, outline: Outline, steps: Sequence[str]) -> None:
    """Raise if steps move channels, and those of the model cannot be moved.

    Raises:
        ModelError: see `junctions`.
    """
    if moving(steps):
        junctions(engine.held(outline.least))


def require_texts(calibration: str, held_out: str) -> None:
    """Raise if texts cannot be opened. Datasets of a hub are not downloaded for this check.

    Raises:
        TextError: a file is missing.
        LibraryError: a package is missing.
    """
    for name in [share.name for share in shares_in(calibration) if share.name != SELF] + [held_out] * bool(held_out):
        if is_local(name):
            require_readable(Path(name))
        else:
            require_datasets(name)


def require_sequences(outline: Outline, calibration: str, held_out: str, shape: Shape, *, column: str) -> None:
    """Raise if texts are too short, or have tokens that the model does not know. Datasets of a hub are not downloaded for this check.

    Raises:
        TextError: see above; a file has no text; or text sampled from the model would begin with a token that it does not know.
    """
    shares = shares_in(calibration)
    for share, of_text in zip(shares, shares_of(shares, shape), strict=True):
        if share.name == SELF:
            require_first_token(outline.tokenizer, outline.n_embedding_rows)
        elif is_local(share.name):
            found = given_texts(share.name, outline.tokenizer, of_text, n_rows=outline.n_embedding_rows, column=column)
            require_share(share, found, of_text.n_calibration if len(shares) > 1 else 0)
    if held_out:
        given_texts(held_out, outline.tokenizer, shape.all_held_out(), n_rows=outline.n_embedding_rows, column=column)


def require_lengths(outline: Outline, length: int, longest: int, target: str) -> None:
    """Raise if sequences of `length` tokens exceed the model's context, or if torch would apply a sliding window within `longest` tokens that the
    target's engine ignores.

    Raises:
        UserError: see above.
    """
    made_for = outline.least.context_length
    if length > (made_for or inf):
        raise UserError(
            f"A sequence must be no longer than the model's context; {length:,} tokens are more than its {made_for:,}: give a "
            "smaller --sequence-length."
        )
    window = outline.window_ignored
    if engine_named(target).ignores_windows and 0 < window < longest:
        raise UserError(
            f"A sequence must be no longer than a sliding window that the engine ignores; this model attends to {window:,} tokens, "
            f"{target} to all {longest:,}, so it would compute something else than is measured: give a smaller --sequence-length"
            f"{'' if longest == length else ' and --context'}."
        )


def _cache_length(settings: Settings) -> int:
    return 0 if settings.cache == DEFAULT_CACHE else settings.cache_length


def space_of(settings: Settings, headers: Headers) -> Space:
    """Return the space of every pair that the headers allow, with the KV cache types.

    Raises:
        UserError: no format of the menu fits a tensor, or a cache type none of the heads.
    """
    held = settings.engine.held(headers)
    return cache_units(settings, held, _made_of(settings, headers, lower_bound_space))


def named_space(settings: Settings, headers: Headers) -> Space:
    """Return the space of the menu's formats alone, as far as the headers allow them.

    Raises:
        UserError: the target cannot leave a matrix unquantized that the settings skip.
    """
    return _made_of(settings, headers, menu_spaces)[0]


def _made_of(settings: Settings, headers: Headers, make: Callable[..., T]) -> T:
    engine = settings.engine
    held, container = engine.held(headers), engine.container(settings.model)
    names = {tensor.name for tensor in (headers if engine.target.cut is uncut else held).tensors}
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        return make(settings, held, names, container=container, scratch=Path(scratch))


def _original_bytes(settings: Settings, headers: Headers) -> int:
    engine = settings.engine
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        return engine.container(settings.model).fixed_bytes(engine.held(headers), (), Path(scratch))


def _n_weights(settings: Settings, headers: Headers) -> int:
    return sum(tensor.n_weights for tensor in engine_named(settings.target).held(headers).tensors)
