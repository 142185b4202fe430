"""Whatever can be known of a run before the first weight of its model is read: the one place where it is looked at.

First the options alone, then files and libraries, then the headers of the model: what costs least is found out first. What only weights, texts or
measurements tell comes later: which tensors have an importance, and so whether the few formats that need one are possible. The smallest file is
known without, as a lower bound that it never falls below.
"""

import tempfile
from math import inf
from pathlib import Path

import numpy as np

from bitwright.compress import Headers, Outline, context_length, open_headers, read_imatrix
from bitwright.engines import engine_named
from bitwright.errors import UserError
from bitwright.objectives import CostObjective, read_documents, require_datasets, require_readable
from bitwright.pipeline.calibration_mix import shares_in
from bitwright.pipeline.cost_limits import Conditions
from bitwright.pipeline.costs import require_countable
from bitwright.pipeline.outputs import require_folder
from bitwright.pipeline.run_search import Search
from bitwright.pipeline.run_space import cache_units, least_space
from bitwright.pipeline.settings import SELF, Settings
from bitwright.pipeline.size_limits import Original, Within, bound_space, require_needed
from bitwright.pipeline.workbench import is_local, require_device
from bitwright.search import solve
from bitwright.spaces import DEFAULT_CACHE, Space, uncut


def require_fittable(settings: Settings, out: Path, *, limit: Within, by: Search, conditions: Conditions, engine_python: str, device: str) -> None:
    """Refuse a fit that cannot end well; see `require_searchable`.

    Raises:
        UserError: see there; the original is within the limit or no file is, nothing is written for the target, or no Python runs its engine.
    """
    require_writable_for(settings.target, engine_python)
    outline = require_searchable(settings, out, by=by, conditions=conditions, device=device)
    for_original = Original(settings.model, settings.target, _original_bytes(settings, outline.most))
    require_needed(limit, for_original, n_weights=_n_weights(settings, outline.most))
    served, size_bytes = bound_space(_space(settings, outline.least), limit, for_original)
    solve(served, np.zeros(served.offered.shape), 8 * size_bytes)


def require_writable_for(target: str, engine_python: str) -> None:
    """Refuse a target for which no finished model can be written and checked here.

    Raises:
        PlanError: it is no engine's.
        LibraryError: a package is missing.
        UserError: no such Python runs its engine.
    """
    engine = engine_named(target)
    engine.require_writable()
    engine.require_python(engine_python)


def require_searchable(settings: Settings, out: Path, *, by: Search, conditions: Conditions, device: str) -> Outline:
    """Refuse a search that cannot end well, and give what the headers of its model say.

    Raises:
        UserError: a device, an output, a text, a library or a model that cannot be used; a cost that cannot be counted; sequences longer than the
            model was made for, or than a window that its engine does not keep to; a menu that fits no tensor.
    """
    costs = [objective for objective in by.objectives if isinstance(objective, CostObjective)]
    require_countable([*(ceiling.objective for ceiling in conditions.at_most), *costs], conditions.device, settings.target)
    require_folder(out)
    require_device(device)
    require_texts(settings.calibration, settings.held_out, settings.text_column)
    outline = open_headers(settings.model)
    require_lengths(outline, settings.sequence_length, max(settings.sequence_length, _cache_length(settings)), settings.target)
    if settings.imatrix:
        read_imatrix(Path(settings.imatrix), outline.least.tensors)
    _space(settings, outline.least)
    return outline


def require_texts(calibration: str, held_out: str, column: str) -> None:
    """Refuse texts that cannot be read; what a hub would give is not asked yet.

    Raises:
        TextError: a file that is not there, or has no texts.
        LibraryError: a package is missing.
    """
    names = [share.name for share in shares_in(calibration) if share.name != SELF] + [held_out] * bool(held_out)
    for name in names:
        if is_local(name):
            require_readable(Path(name))
        else:
            require_datasets(name)
    for name in filter(is_local, names):
        read_documents(Path(name), column)


def require_lengths(outline: Outline, length: int, longest: int, target: str) -> None:
    """Refuse sequences of `length` tokens that the model was not made for, and any up to `longest` tokens of which torch would see a window only and
    the engine of the target all.

    Raises:
        UserError: see above.
    """
    made_for = context_length(outline.least)
    if length > (made_for or inf):
        raise UserError(
            f"A sequence must be no longer than the model was made for; {length:,} tokens are more than its {made_for:,}: give a "
            "smaller --sequence-length."
        )
    window = outline.window_ignored
    if engine_named(target).ignores_windows and 0 < window < longest:
        raise UserError(
            f"A sequence must be no longer than a window that the engine does not keep to; this model attends to {window:,} tokens, "
            f"{target} to all {longest:,}, so it would compute something else than is measured: give a smaller --sequence-length"
            f"{'' if longest == length else ' and --context'}."
        )


def _cache_length(settings: Settings) -> int:
    return 0 if settings.cache == DEFAULT_CACHE else settings.cache_length


def _space(settings: Settings, headers: Headers) -> Space:
    """Every pair that headers allow, with the types of the cache."""
    engine = engine_named(settings.target)
    held, container = engine.held(headers), engine.container(settings.model)
    names = {tensor.name for tensor in (headers if engine.target.cut is uncut else held).tensors}
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        space = least_space(settings, held, names, container=container, scratch=Path(scratch))
    return cache_units(settings, held, space)


def _original_bytes(settings: Settings, headers: Headers) -> int:
    engine = engine_named(settings.target)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        return engine.container(settings.model).fixed_bytes(engine.held(headers), (), Path(scratch))


def _n_weights(settings: Settings, headers: Headers) -> int:
    return sum(tensor.n_weights for tensor in engine_named(settings.target).held(headers).tensors)
