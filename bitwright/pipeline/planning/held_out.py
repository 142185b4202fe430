"""Measure candidates on held-out text, all objectives in one pass: as searched, and again as they ship."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitwright.compress import EXPANDED_BYTES, choice_loader, swapping
from bitwright.devices import Device
from bitwright.objectives import (
    QUALITY,
    CostObjective,
    Estimate,
    Evaluator,
    ModelObjective,
    NamedObjective,
    Preparation,
    Reference,
    TokenObjective,
    Tokens,
)
from bitwright.pipeline.finishing.shipped_weights import shipped_weights
from bitwright.pipeline.loaded_run import LoadedRun, referenced, timed
from bitwright.pipeline.planning.costs import named_costs
from bitwright.pipeline.run import Run
from bitwright.pipeline.workers.measuring import measuring_of
from bitwright.spaces import Choice, chosen_cache

Objective = TokenObjective | ModelObjective


@dataclass(frozen=True)
class CandidateScores:
    """Objective values on held-out text: the objectives with their units, and the estimates of each candidate by its name."""

    objectives: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Estimate, ...]], ...]

    def first_values(self) -> dict[str, float]:
        """Return the first objective of each candidate by name."""
        return {name: estimates[0].value for name, estimates in self.rows}


def prepared(loaded: LoadedRun, named: Sequence[NamedObjective], tokens: Tokens) -> tuple[Objective, ...]:
    """Return the objectives prepared for a text, without the costs, which need no text. The model must have its original weights."""
    wanted = [objective for objective in named if not isinstance(objective, CostObjective)]
    return tuple(objective.prepare(loaded.model, tokens) if isinstance(objective, Preparation) else objective for objective in wanted)


def measure(loaded: LoadedRun, run: Run, choices: Sequence[Choice]) -> None:
    """Measure the quality of the `choices` that the run has not measured yet, in one transaction each."""
    _measure(loaded, run, choices, ships=(), others=())


def measure_candidates(loaded: LoadedRun, run: Run, choices: Sequence[Choice]) -> None:
    """Measure the quality of `choices` as `measure` does, and again as they ship if that differs."""
    _measure(loaded, run, choices, ships=choices if run.settings.remeasures else (), others=())


def measure_shipped(loaded: LoadedRun, variants: Sequence[Run], choice: Choice) -> None:
    """Measure the quality of a choice as each of the `variants` of a run ships it, those that have not measured it yet."""
    pending = [run for run in variants if tuple(choice.tolist()) not in run.shipped]
    if pending:
        with referenced(loaded, loaded.texts.held_out) as reference:
            for run in pending:
                _as_shipped(loaded, run, [choice], reference)


def judge(
    loaded: LoadedRun, run: Run, named: Mapping[str, Choice], objectives: Sequence[NamedObjective], *, device: Device | None = None
) -> CandidateScores:
    """Measure the quality and every objective of the candidates in `named`, and compute their costs. The run stores the measurements.

    Raises:
        UserError: an objective is not finite, or a cost cannot be computed.
    """
    costs = named_costs(run, (objective for objective in objectives if isinstance(objective, CostObjective)), device)
    made = prepared(loaded, objectives, loaded.texts.held_out)
    choices = list(named.values())
    found = _measure(loaded, run, choices, ships=choices if run.settings.remeasures else (), others=made)
    rows = []
    for name, choice in named.items():
        counted = (Estimate(float(cost.of(choice)), 0.0) for cost in costs)
        estimates = found.get(tuple(choice.tolist()), {})
        rows.append((name, (*(estimates[objective.name] for objective in made), *counted)))
    words = (*((objective.name, objective.unit) for objective in made), *((cost.objective.value, cost.objective.unit) for cost in costs))
    return CandidateScores(tuple(f"{name} {unit}".strip() for name, unit in words), tuple(rows) if words else ())


def _measure(
    loaded: LoadedRun, run: Run, choices: Sequence[Choice], *, ships: Sequence[Choice], others: Sequence[Objective]
) -> dict[tuple[int, ...], Mapping[str, Estimate]]:
    """Measure the `choices` that the run has not measured, and those in `ships` as they ship. With objectives in `others`, measure all `choices`
    and return the estimates of each by the objective's name.
    """
    searched, shipped = run.measurements, run.shipped
    pending = [choice for choice in choices if others or tuple(choice.tolist()) not in searched]
    to_ship = [choice for choice in ships if tuple(choice.tolist()) not in shipped]
    if not pending and not to_ship:
        return {}
    with referenced(loaded, loaded.texts.held_out) as reference:
        loaded.store.put_text("reference perplexity", repr(reference.perplexity))
        found = _as_searched(loaded, run, pending, others, reference) if pending else {}
        if to_ship:
            _as_shipped(loaded, run, to_ship, reference)
    return found


def _as_searched(
    loaded: LoadedRun, run: Run, choices: Sequence[Choice], others: Sequence[Objective], reference: Reference
) -> dict[tuple[int, ...], Mapping[str, Estimate]]:
    objectives = (*QUALITY, *(objective for objective in others if objective.name not in [known.name for known in QUALITY]))
    found: dict[tuple[int, ...], Mapping[str, Estimate]] = {}
    with swapping(loaded.model, expanded_bytes=EXPANDED_BYTES) as swapper:
        load = choice_loader(swapper, loaded.model, loaded.levels, run.everything)
        is_streamed = loaded.model.residence.is_streamed
        by = measuring_of(loaded.workers, loaded.levels, run.everything, reference.tokens, is_streamed=is_streamed)
        stage = "candidates"
        evaluator = Evaluator(loaded.model, load, reference=reference, objectives=objectives, store=loaded.store, stage=stage, measuring=by)
        with loaded.progress.stage("Measuring candidates on held-out text", len(choices)) as advance:
            for start in range(0, len(choices), evaluator.at_once):
                together = choices[start : start + evaluator.at_once]
                with timed(loaded.store, stage):  # the evaluator counts the tokens
                    measured = evaluator.evaluate(together, evaluator.n_sequences)
                found |= {tuple(choice.tolist()): one.estimates for choice, one in zip(together, measured, strict=True)}
                advance(len(together))
    return found


def _as_shipped(loaded: LoadedRun, run: Run, choices: Sequence[Choice], reference: Reference) -> None:
    with swapping(loaded.model) as swapper:

        def load(choice: Choice) -> None:
            swapper.restore()
            swapper.load(shipped_weights(loaded, run, choice), chosen_cache(run.space, choice))

        evaluator = Evaluator(loaded.model, load, reference=reference, objectives=QUALITY, store=loaded.store, rounding=run.settings.shipping)
        for choice in choices:
            with timed(loaded.store, "ship", reference.tokens.n_tokens):
                evaluator(choice, evaluator.n_sequences)
