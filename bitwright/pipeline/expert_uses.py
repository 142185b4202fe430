"""What the calibration text makes of each expert of a run's model, and what a plan does."""

from collections.abc import Mapping

import numpy as np

from bitwright.errors import RunError
from bitwright.pipeline.costs import costs_of
from bitwright.pipeline.run import Run
from bitwright.predictors import MINIMUM_TOKENS, rare_experts
from bitwright.report import ExpertUse
from bitwright.spaces import expert_of, role, weight_space

_STACKED = "_exps"  # the end of the roles of routed experts


def expert_uses(run: Run, formats: Mapping[str, str]) -> tuple[ExpertUse, ...]:
    """A row for each routed expert, none where there are none. `formats` maps tensors to the names of the formats that they get.

    Raises:
        RunError: `formats` names an expert that the run's model does not have.
    """
    routing, of_expert = run.routing, _formats(formats)
    known = set(zip(routing.layer.tolist(), routing.expert.tolist(), strict=True)) | {(layer, -1) for layer in routing.layer.tolist()}
    for layer, expert in of_expert:
        if (layer, expert) not in known:
            raise RunError(
                f"A plan may name only experts of the run's model; expert {max(expert, 0)} of layer {layer} is none of {run.folder}: give a plan "
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


def read_by_a_step(run: Run, formats: Mapping[str, str]) -> tuple[float, int]:
    """Bytes that a decode step reads of the model that `formats` make, tensor to format, and bytes of all of it; see `Reading`.

    Raises:
        RunError: `formats` are not those of a plan of this run.
        ModelError: the model is not where it was.
    """
    space = weight_space(run.prices.everything)
    try:
        choice = space.choice(dict(formats))
    except KeyError as error:
        raise RunError(f"A plan must be of the run that it is shown with; {run.folder} differs in {error}: give a plan of it.") from error
    return costs_of(run).reading(space).read_bytes(choice), space.total_bytes(choice)


def _formats(formats: Mapping[str, str]) -> dict[tuple[int, int], list[str]]:
    """The formats of each expert, every one once, by layer and index; the index is -1 where a layer holds its experts in one tensor."""
    found: dict[tuple[int, int], list[str]] = {}
    for tensor, form in formats.items():
        if role(tensor).endswith(_STACKED):
            of_expert = found.setdefault(expert_of(tensor), [])
            of_expert += [form] * (form not in of_expert)
    return found
