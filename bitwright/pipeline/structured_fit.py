"""Offer of structure in a fit: the plan of formats alone, or of formats and structure where that measures better on held-out text."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

import numpy as np

from bitwright.compress import Source, require_orderable, whole_structure
from bitwright.engines import Engine
from bitwright.errors import BudgetError, UserError
from bitwright.methods import named_drops
from bitwright.objectives import CostObjective, Measurement, standard_error
from bitwright.pipeline.finishing.compensated_choices import CompensatedChoices
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.planning.candidates import make_plan
from bitwright.pipeline.planning.cost_limits import NO_CONDITIONS, Conditions
from bitwright.pipeline.planning.origins import Origin
from bitwright.pipeline.planning.size_limits import BudgetOrMemory
from bitwright.pipeline.planning.structured_seconds import CountedSeconds, counted_seconds
from bitwright.pipeline.planning.structured_size import CountedBytes
from bitwright.pipeline.run import Run
from bitwright.pipeline.searching.search import Search
from bitwright.pipeline.searching.structured_search import StructuredChoice, StructuredSearch
from bitwright.report import Decoding, StructureNote
from bitwright.spaces import ORDERED_KINDS, ChannelScores, Choice, Plan, PlannedStructure, Structure, StructureKind, chosen_cache
from bitwright.written_files import digest

_STRATEGY = "structure and formats"
_NONE = StructureNote("", 0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Alone:
    """Formats alone: a choice, its measurement on held-out text, and its plan, None where it is not within the limit."""

    choice: Choice
    measurement: Measurement
    plan: Plan | None


def require_offerable(
    engine: Engine, source: Source, kinds: Collection[StructureKind], by: Search, conditions: Conditions, *, method: str = ""
) -> None:
    """Raise if structure of these kinds, by the method named where there is one, cannot be chosen for a model, given as the engine holds it.

    Raises:
        UserError: the engine does not load it, its weights are not stored as floats and are to be ordered, other things are asked for with it, or the
            method takes away what this model does not have.
    """
    if not kinds:
        return
    taken = engine.kinds_taken(source, kinds)
    if {*taken} <= engine.absences.keys():
        return
    other = next((ceiling.objective for ceiling in conditions.at_most if ceiling.objective != CostObjective.SECONDS), None)
    if other or by.objectives or by.as_published:
        what = f"--at-most {other}" if other else "--objectives" if by.objectives else "--as-published"
        raise UserError(
            f"Structure is chosen by divergence within a budget or a memory, and seconds per token beside it; {what} is for something else: leave it "
            "or --structure out."
        )
    if conditions.at_most and engine.memory is None:
        raise UserError(
            f"Seconds per token count the cache, which is known for llama.cpp alone; the target is {engine.name}: leave --at-most or --structure out."
        )
    if any(kind in ORDERED_KINDS for kind in taken):
        require_orderable(source.tensors)
    drops = named_drops(method)
    if drops is not None:
        drops.structure(whole_structure(source))


@dataclass(frozen=True, eq=False)
class Offer:
    """Limits within which structure is offered: a size `limit`, by which `run` counts `size_bytes`, and the ceilings of `conditions`."""

    run: Run
    limit: BudgetOrMemory
    size_bytes: int
    conditions: Conditions = NO_CONDITIONS

    @property
    def text(self) -> str:
        """The limits in words."""
        return ", ".join([self.limit.text, *(ceiling.text for ceiling in self.conditions.at_most)])


def offer_structure(loaded: LoadedRun, offer: Offer, alone: Alone) -> tuple[Plan, StructureNote]:
    """Return the better plan of formats alone and formats with structure by held-out text, and the comparison.

    Raises:
        BudgetError: formats alone are not within the limits, and no structure is.
    """
    found = structured_plan(loaded, offer, alone)
    if alone.plan is not None:
        return found if found is not None and found[1].won else (alone.plan, _NONE if found is None else found[1])
    if found is None:
        raise BudgetError(f"A limit must hold a model with parts taken away; none within {offer.text} was found: name a larger one.")
    return found


def structured_plan(loaded: LoadedRun, offer: Offer, alone: Alone) -> tuple[Plan, StructureNote] | None:
    """Return the best plan with parts taken away by held-out text, and its comparison with formats alone, None where there is none.

    Raises:
        UserError: the seconds of a decode step cannot be counted.
    """
    loaded, run = loaded.reordered, offer.run
    counted = CountedBytes(loaded.engine, loaded.model.source, offer.limit, offer.size_bytes, loaded.folder)
    seconds = counted_seconds(run, loaded.engine, loaded.model.source, offer.conditions, chosen_cache(run.space, alone.choice))
    refits = CompensatedChoices(loaded, run)
    search = StructuredSearch(loaded, run, counted, alone.choice, refits, seconds)
    found = search.candidates()
    found += search.compensated(found)
    pairs = sorted(zip(search.measured(found), found, strict=True), key=lambda pair: pair[0].nats_per_token)
    if not pairs:
        return None
    measurement, made = pairs[0]
    cut = replace(made, is_compensated=False).key
    as_cut = next((other.nats_per_token for other, rival in pairs if made.is_compensated and (rival.key == cut).all()), None)
    note = replace(_note(measurement, made, alone, whole_structure(loaded.model.source)), as_cut=as_cut, decoding=_decoding(seconds, made, alone))
    plan = make_plan(run, budget=offer.text, strategy=_STRATEGY, measurement=_of_formats(measurement, made), by=Origin("table"))
    return plan.model_copy(update={"structure": _planned(refits, made), "size_bytes": made.size_bytes}), note


def _decoding(seconds: CountedSeconds | None, made: StructuredChoice, alone: Alone) -> Decoding | None:
    if seconds is None or made.seconds is None:
        return None
    of_formats = None if alone.plan is None else seconds.of(whole_structure(seconds.source), alone.plan.formats)
    return Decoding(seconds.device, made.seconds, of_formats)


def _of_formats(measurement: Measurement, made: StructuredChoice) -> Measurement:
    return replace(measurement, choice=tuple(made.choice.tolist()))


def _planned(refits: CompensatedChoices, made: StructuredChoice) -> PlannedStructure:
    kept, loaded = made.structure, refits.loaded
    order, ordered = loaded.order.digest, [kind for kind in ORDERED_KINDS if kind in loaded.structure]
    refitted = refits.planned(made.choice, kept) if made.is_compensated else None
    scores = _recorded_scores(loaded) if loaded.channel_scores else None
    return PlannedStructure.model_validate({**asdict(kept), "ordered": ordered, "order": order, "compensation": refitted, "scores": scores})


def _recorded_scores(loaded: LoadedRun) -> ChannelScores:
    path = loaded.channel_scores_path
    return ChannelScores(method=loaded.settings.structure_method, path=str(path.absolute()), sha256=digest(path))


def _note(measurement: Measurement, made: StructuredChoice, alone: Alone, whole: Structure) -> StructureNote:
    values = measurement.nats_per_token, measurement.standard_error
    kept = in_words(made.structure, whole)
    if alone.plan is None:
        return StructureNote(kept, made.size_bytes, *values)
    paired = measurement.by_sequence[:, 0] - alone.measurement.by_sequence[:, 0]
    difference = float(np.mean(paired)), standard_error(paired)
    return StructureNote(
        kept, made.size_bytes, *values, alone_nats=alone.measurement.nats_per_token, alone_bytes=alone.plan.size_bytes, difference=difference
    )


def in_words(structure: Structure, whole: Structure) -> str:
    """Return what a structure keeps of the `whole` model, such as `29 of 30 blocks, attention in 27 of them, 93 % of their channels`."""
    left = [i for i in range(whole.n_layers) if i not in structure.gone]
    attending = [i for i in left if structure.head_groups[i]]
    words = [f"{len(left)} of {whole.n_layers} blocks"]
    if len(attending) < len(left):
        words.append(f"attention in {len(attending)} of them")
    if structure.dropped(whole):
        words.append(f"{len(structure.experts[left[0]])} of {len(whole.experts[left[0]])} experts in each")
    for name, kept, full, among in (
        ("heads there", structure.head_groups, whole.head_groups, attending),
        ("channels", structure.channels, whole.channels, left),
    ):
        share = sum(kept[i] for i in among) / max(sum(full[i] for i in among), 1)
        if share < 1:
            words.append(f"{share:.0%} of the {name}".replace("%", " %"))
    return ", ".join(words)
