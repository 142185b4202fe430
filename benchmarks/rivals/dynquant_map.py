"""DynQuant: the loss Σ E[δ²] E[x²] (W − Q(W))² that it expects of each width, from moments of a backward pass, and its greedy allocator.

DynQuant gathers its signals while a model is fine-tuned; here nothing is trained: the calibration sequences pass forward and backward, one a step.
Its floors for the roles of layers are lowered to the smallest width, so that it may choose as the other lanes do, and its search for clipped ranges
is held to the whole range, which is what the codec of the race stores. It knows 2, 3, 4 and 8 bits: other widths are not offered, so a budget above
its largest stays partly unused. Its graph is cut down to the layers that are decided about, and its target, which counts whole words for each row,
is moved to where our count meets the budget. For the stacked experts of a layer it has no such loss; they are priced by its rank of gradient
variance, which it scales to the others.

Counted: one forward and one backward pass for each calibration sequence.
"""

from dataclasses import dataclass, replace

from dynquant.allocate.budget import Budget
from dynquant.allocate.knapsack import InfeasibleTargetError, allocate_bits
from dynquant.allocate.policy import AllocationPolicy
from dynquant.constants import BIT_OPTIONS, PER_ROW_GROUP_SIZE
from dynquant.graph.classify import ModelGraph, classify_model
from dynquant.graph.roles import ModuleRole
from dynquant.score.importance import score_modules
from dynquant.score.sensitivity import SensitivityTable, estimate_sensitivity, module_weights
from dynquant.signals import track_signals
from question import Answer, Clock, Layers, Question, ask, closest_map, load, write

WHOLE_RANGE = (1.0,)


@dataclass(frozen=True)
class Priced:
    """Inputs of DynQuant's allocation: the layers, their ranks, their expected losses, and what is allowed."""

    graph: ModelGraph
    ranks: dict[str, float]
    losses: SensitivityTable
    policy: AllocationPolicy


def price(question: Question, widths: tuple[int, ...]) -> Priced:
    """Gather the signals and turn them into losses."""
    model = load(question).requires_grad_(True)
    whole = classify_model(model)
    graph = replace(whole, modules={name: replace(whole.modules[name], tied_roles=()) for name in question.shapes}, skipped={}, tied_groups=())
    with track_signals(model, None, channel_moment_every=1, measure_expert_banks=True) as tracker:
        for ids in question.batches(1):
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            tracker.on_optimizer_step()
            model.zero_grad()
        stats, moments = tracker.snapshot(), tracker.channel_moments()
    group = question.group or PER_ROW_GROUP_SIZE
    losses = estimate_sensitivity(graph, moments, module_weights(model), bit_options=widths, group_size=group, candidates=WHOLE_RANGE)
    floors = dict.fromkeys(ModuleRole, min(widths))
    policy = AllocationPolicy(widths, group, structural_roles=frozenset(), floor_overrides=floors)
    return Priced(graph, score_modules(graph, stats).scores(), losses, policy)


def solve(priced: Priced, target: float) -> Layers | None:
    """DynQuant's map for its own count of bits per weight, None where that is too few."""
    budget = Budget.from_target(priced.graph, target_bits=target, group_size=priced.policy.group_size)
    try:
        return allocate_bits(priced.graph, priced.ranks, budget, priced.policy, priced.losses).bits
    except InfeasibleTargetError:
        return None


def main() -> None:
    """Run the benchmark from the command line."""
    question = ask(__doc__)
    clock = Clock()
    widths = tuple(bits for bits in question.bits if bits in BIT_OPTIONS)
    priced = price(question, widths)
    maps = {budget: closest_map(question, budget, lambda target: solve(priced, target)) for budget in question.budgets}
    found = {budget: layers for budget, layers in maps.items() if layers}
    notes = [f"DynQuant has no {bits} bits" for bits in question.bits if bits not in widths]
    write(question, "dynquant", "dynquant-core", Answer(found, question.tokens.size, question.tokens.size, clock.read(), notes))


if __name__ == "__main__":
    main()
