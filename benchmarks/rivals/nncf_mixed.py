"""NNCF: `compress_weights` with two precisions, and its default criterion with data: the largest variance of a layer's inputs over an error.

NNCF gives the less sensitive layers the lower precision until a `ratio` of the weights has it. Its score of a layer is the maximum over channels of
the variance of its input, times one over the error that 8 bits make, so it depends on no width that is asked for here: one ranking serves all
budgets. It is asked for with a ratio that no layer exceeds; then as few of the first ranked as the budget allows get the lower of the two
neighbouring widths whose uniform maps enclose it, the others the higher. Embedding and head are outside NNCF's ratio anyhow.

Counted: one forward pass for each calibration sequence.
"""

from typing import Any

import nncf
from nncf.common.factory import StatisticsAggregatorFactory, build_graph
from nncf.quantization.algorithms.weight_compression.algorithm import WeightCompression
from nncf.quantization.algorithms.weight_compression.mixed_precision import MaxVarianceCriterion
from nncf.torch.model_creation import wrap_model
from question import Answer, Clock, Layers, Question, ask, load, write

EVERYTHING = 2.0  # a ratio that is never reached


def ranking(question: Question) -> list[str]:
    """The layers that are decided about, from the least sensitive to the most."""
    batches = question.batches(1)
    model: Any = wrap_model(load(question), example_input=batches[0], trace_parameters=True)
    graph = build_graph(model)
    algorithm = WeightCompression(
        mode=nncf.CompressWeightsMode.INT4_ASYM,
        ratio=EVERYTHING,
        group_size=-1,
        ignored_scope=nncf.IgnoredScope(),
        all_layers=False,
        sensitivity_metric=nncf.SensitivityMetric.MAX_ACTIVATION_VARIANCE,
        awq=False,
        subset_size=len(batches),
        scale_estimation=False,
        gptq=False,
        lora_correction=False,
        backup_mode=nncf.BackupMode.INT8_ASYM,
    )
    algorithm.set_backend_entity(model)
    _, ranked, _ = algorithm.get_weight_compression_parameters(model, graph)
    criterion = MaxVarianceCriterion(EVERYTHING, len(batches))
    inputs = algorithm.get_matmul_input_to_output_nodes_map([layer.node_with_weight for layer in ranked], graph)
    aggregator = StatisticsAggregatorFactory.create(model, nncf.Dataset(batches))
    aggregator.register_statistic_points(criterion.get_statistic_points(model, graph, inputs))
    aggregator.collect_statistics(model, graph)
    ordered = criterion.apply(model, graph, aggregator.statistic_points, weight_params=ranked)
    return [name for layer in ordered if (name := layer.weight_name.removesuffix(".weight")) in question.shapes]


def solve(question: Question, ranked: list[str], budget: float) -> Layers | None:
    """The map with the fewest layers at the lower width that keeps the budget, None where there is none."""
    pair = question.neighbours(budget)
    if pair is None:
        return None
    maps = (dict.fromkeys(ranked[:n_low], pair[0]) | dict.fromkeys(ranked[n_low:], pair[1]) for n_low in range(len(ranked) + 1))
    return next(layers for layers in maps if question.stored(layers) <= budget)


def main() -> None:
    """Run the benchmark from the command line."""
    question = ask(__doc__)
    clock = Clock()
    ranked = ranking(question)
    if missing := set(question.shapes) - set(ranked):
        raise SystemExit(f"NNCF ranks only plain matrices of a traced model; it did not rank {', '.join(sorted(missing)[:3])}")
    maps = {budget: layers for budget in question.budgets if (layers := solve(question, ranked, budget))}
    write(question, "nncf mixed", "nncf", Answer(maps, question.tokens.size, 0, clock.read()))


if __name__ == "__main__":
    main()
