"""What a rarely chosen expert costs where the router sends it tokens all the same: its loss is measured instead of taken from the other experts.

Every token of some sequences is sent to the expert, in place of the last that it would be sent to in that layer, in the original and in the changed
model alike. The divergence between the two is what a token costs that is sent there, and an expert is never cheaper than `MINIMUM_TOKENS` of them:

    price(u, f) ≥ MINIMUM_TOKENS / tokens read · KL(original, all tokens sent to u ‖ the same with u in f)

It needs no other expert of the layer to have been seen, as the floors of `rare_experts` do.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Rerouting, is_corrected
from bitwright.errors import ModelError
from bitwright.objectives import Divergence, Reference, Routing, Tokens
from bitwright.predictors.sensitivity.caching import kept
from bitwright.predictors.sensitivity.measured.rare_experts import MINIMUM_TOKENS
from bitwright.predictors.sensitivity.subject import Subject

_SEQUENCES = 8  # that are read for it


def forced_costs(subject: Subject, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divergence in nats for each token that is sent to one of `units` `(n,)`, single experts, in each format of the subject's space
    `(n, n_formats)`, NaN where a pair is not offered. A forward pass of 8 sequences for each pair, and one for each unit.

    Raises:
        ModelError: the routers choose by more than their logits.
    """
    if is_corrected(subject.model):
        raise ModelError(
            "An expert is sent tokens by raising its logit; this model's routers choose by a correction of each expert besides: take floors for "
            "rare ones."
        )
    with subject.progress.stage("Sending tokens to rarely chosen experts", len(units)) as advance:
        rows = []
        for u in units:
            rows.append(kept(subject, f"forced/{u}", lambda u=u: _costs(subject, int(u))))  # type: ignore[misc]
            advance(1)
    return np.array(rows).reshape(len(units), len(subject.space.formats))


def forced_table(table: NDArray[np.float64], subject: Subject, routing: Routing) -> NDArray[np.float64]:
    """`table` `(n_units, n_formats)`, in nats per token of the text with this `routing`, with the prices of rarely chosen experts raised to what
    `MINIMUM_TOKENS` tokens cost there.

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
                subject.levels.packed(tensor, space.formats[f])  # before any of the model's weights is another
    with Rerouting(subject.model) as rerouting:
        rerouting.forcing(unit.layer, unit.expert)
        reference = Reference(subject.model, tokens, scratch=subject.levels.folder, progress=subject.progress)
        divergence = Divergence(subject.model, subject.levels, space=space, reference=reference)
        for f in np.flatnonzero(space.offered[u]):
            found[f] = divergence.of_one(u, int(f))
        reference.discard()
    return found
