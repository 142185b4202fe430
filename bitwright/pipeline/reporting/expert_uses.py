"""Use of each routed expert by the calibration text, and its formats in a plan."""

from collections.abc import Mapping

import numpy as np

from bitwright.errors import RunError
from bitwright.pipeline.planning.costs import costs_of
from bitwright.pipeline.run import Run
from bitwright.predictors import MINIMUM_TOKENS, rare_experts
from bitwright.report import ExpertUse
from bitwright.spaces import expert_of, is_routed, weight_space


def expert_uses(run: Run, formats: Mapping[str, str]) -> tuple[ExpertUse, ...]:
    """Return a row for each routed expert; empty for a dense model. `formats` maps tensors to the names of their formats.

    Raises:
        RunError: `formats` names an expert that the run's model does not have.
    """
    routing, of_expert = run.routing, _formats(formats)
    known = set(zip(routing.layer.tolist(), routing.expert.tolist(), strict=True)) | {(layer, -1) for layer in routing.layer.tolist()}
    for layer, expert in of_expert:
        if (layer, expert) not in known:
            raise RunError(
                f"A plan may name only experts of the run's model; expert {max(expert, 0)} of layer {layer} is not in {run.folder}: give a plan "
                "of this run."
            )
    rare = set(rare_experts(routing))
    return tuple(
        ExpertUse(
            name=f"blk.{layer}.expert.{expert}",
            n_tokens=int(routing.n_chosen[row]),
            frequency=float(routing.frequency[row]),
            mean_weight=float(routing.mean_weight[row]),
            formats=tuple(of_expert.get((layer, expert), of_expert.get((layer, -1), ()))),
            minimum_tokens=MINIMUM_TOKENS,
            is_rare=f"blk.{layer}.expert.{expert}" in rare,
        )
        for row, (layer, expert) in enumerate(np.stack([routing.layer, routing.expert], axis=1).tolist())
    )


def decode_read_bytes(run: Run, formats: Mapping[str, str]) -> tuple[float, int]:
    """Return the bytes that a decode step reads of the model with `formats` (tensor → format), and the bytes of the whole model; see `Reading`.

    Raises:
        RunError: `formats` are not those of a plan of this run.
        ModelError: the model is no longer at its path.
    """
    space = weight_space(run.everything)
    try:
        choice = space.choice(dict(formats))
    except KeyError as error:
        raise RunError(f"A plan must be of the run that it is shown with; {run.folder} differs in {error}: give a plan of that run.") from error
    return costs_of(run).reading(space).read_bytes(choice), space.total_bytes(choice)


def _formats(formats: Mapping[str, str]) -> dict[tuple[int, int], list[str]]:
    """Return the distinct formats of each expert by (layer, index); the index is -1 if a layer holds its experts in one tensor."""
    found: dict[tuple[int, int], list[str]] = {}
    for tensor, form in formats.items():
        if is_routed(tensor):
            of_expert = found.setdefault(expert_of(tensor), [])
            of_expert += [form] * (form not in of_expert)
    return found
