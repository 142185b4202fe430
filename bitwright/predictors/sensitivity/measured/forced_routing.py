"""Prices of rarely selected experts, measured with forced routing instead of estimated from the other experts.

Every token of a few sequences is routed to the expert, in place of the last of its experts in that layer, in the original and in the changed model.
The divergence between the two is the cost of one token routed there, and the price of an expert is at least that of `MINIMUM_TOKENS` such tokens:

    price(u, f) ≥ MINIMUM_TOKENS / tokens read · KL(original, all tokens routed to u ‖ the same with u in f)

Unlike the floors of `rare_experts`, it does not need other experts of the layer with enough tokens.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Rerouting, is_corrected
from bitwright.errors import ModelError
from bitwright.objectives import Reference, Routing, Tokens
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.measured.rare_experts import MINIMUM_TOKENS
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import one_unit

_SEQUENCES = 8  # read for each expert


def forced_costs(subject: Subject, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Measure the divergence in nats per token routed to each of `units` `(n,)`, single experts, in each format `(n, n_formats)`, NaN where a pair is
    not offered. One forward pass of 8 sequences for each pair, and one for each unit.

    Raises:
        ModelError: the routers do not select by their logits alone.
    """
    if is_corrected(subject.model):
        raise ModelError(
            "Forced routing needs routers that select by their logits alone; this model's add a correction bias to each expert: choose floors for "
            "rare experts."
        )
    with subject.progress.stage("Routing tokens to rarely selected experts", len(units)) as advance:
        rows = []
        for u in units:
            rows.append(cached(subject, f"forced/{u}", lambda u=u: _costs(subject, int(u))))  # type: ignore[misc]
            advance(1)
    return np.array(rows).reshape(len(units), len(subject.space.formats))


def forced_table(table: NDArray[np.float64], subject: Subject, routing: Routing) -> NDArray[np.float64]:
    """Raise the prices of rarely selected experts in `table` `(n_units, n_formats)`, in nats per token of the text with this `routing`, to the
    measured cost of `MINIMUM_TOKENS` tokens.

    Raises:
        ModelError: see `forced_costs`.
    """
    units = subject.space.units
    seen = np.array([routing.n_chosen[routing.row_of(unit.layer, unit.expert)] if unit.expert >= 0 else MINIMUM_TOKENS for unit in units])
    rare, priced = np.flatnonzero(seen < MINIMUM_TOKENS), table.copy()
    if len(rare):
        floors = MINIMUM_TOKENS / routing.n_read[0] * forced_costs(subject, rare)
        priced[rare] = np.where(np.isnan(floors), table[rare], np.fmax(table[rare], floors))
    return priced


def _costs(subject: Subject, u: int) -> NDArray[np.float64]:
    space, unit = subject.space, subject.space.units[u]
    found = np.full(len(space.formats), np.nan)
    tokens = Tokens(subject.tokens.ids[:_SEQUENCES], subject.tokens.text)
    for f in np.flatnonzero(space.offered[u]):
        for tensor in unit.tensors:
            if space.formats[f].name != tensor.stored:
                subject.levels.packed(tensor, space.formats[f])  # while the model has its original weights
    with Rerouting(subject.model) as rerouting:
        rerouting.forcing(unit.layer, unit.expert)
        reference = Reference(subject.model, tokens, scratch=subject.levels.folder, progress=subject.progress)
        for f in np.flatnonzero(space.offered[u]):
            found[f] = one_unit(subject, reference, unit=u, form=int(f))
        reference.discard()
    return found
