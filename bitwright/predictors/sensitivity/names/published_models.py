"""Sensitivities of the tensors of published models, by role and depth, and what they let expect of another model.

Learned on the tables of Thireus, GGUF Tool Suite and its contributors (https://github.com/Thireus/GGUF-Tool-Suite): the divergence of 20 models with
one tensor at a time in a coarse type. `published_models.json` holds what is derived of them, `LICENSE.Thireus` their licence;
`python -m benchmarks.published_tables TABLES --write FILE` makes it anew.

The logarithm of a sensitivity, less its model's median, is smoothed along the depth for each role (Nadaraya, Theory of Probability and its
Applications 9, 1964) and stored at a few depths. What it is expected to be in another model is the mean over the published models that have the role,
weighted by their kinship with it: how many roles they share, and how near they are in size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: names that stand wherever these sensitivities, or what is learned from them, are shown
CREDIT = "Thireus, GGUF Tool Suite and its contributors"
#: depth of a tensor outside the blocks, whose role tells it apart
OUTSIDE = 0.5
_FILE = Path(__file__).with_name("published_models.json")
_KNOTS = (np.arange(16) + 0.5) / 16  # depths, shares of the blocks
_DEPTH, _FAR = 0.03, 1e-4  # length of the kernel, and the weight of a tensor far away
_ROLES, _SIZE = 0.2, 2.0  # lengths of kinship: of the share of roles that differ, and of the logarithm of the ratio of weights
_OTHER_ROLE = 1e-6  # weight of a model without the role, which stands in by the mean of all its roles at that depth
_ANY = ""  # stands for the mean of all roles


@dataclass(frozen=True)
class Family:
    """Family of a model, as its header says: the roles of its matrices and the number of their weights."""

    roles: frozenset[str]
    n_weights: int

    def kinship(self, other: "Family") -> float:
        """Return exp(-(1 - |A ∩ B| / |A ∪ B|) / 0.2 - |log of the ratio of weights| / 2), A and B the sets of roles; 1 for equals."""
        shared = len(self.roles & other.roles) / len(self.roles | other.roles)
        return exp(-(1 - shared) / _ROLES - abs(log(self.n_weights / other.n_weights)) / _SIZE)


@dataclass(frozen=True)
class Place:
    """Place of a tensor in a model: its role, and its depth from 0 to 1."""

    role: str
    depth: float


@dataclass(frozen=True, eq=False)
class PublishedModel:
    """Published model: by role, the logarithms of its tensors' sensitivities at 16 depths `(16,)`, less the median of the model."""

    name: str
    family: Family
    by_role: Mapping[str, NDArray[np.float64]]

    def at(self, place: Place) -> float:
        """Return the logarithm at a place; that of all roles together where the model lacks the role."""
        return float(np.interp(place.depth, _KNOTS, self.by_role.get(place.role, self.by_role[_ANY])))


def smoothed(name: str, family: Family, places: Sequence[Place], sensitivities: Sequence[float]) -> PublishedModel:
    """Return the model with these sensitivities, in nats/token and above 0, of its tensors at these places."""
    logs = np.log(sensitivities)
    logs -= np.median(logs)
    roles, depths = np.array([place.role for place in places]), np.array([place.depth for place in places])
    near = np.exp(-0.5 * ((_KNOTS[:, None] - depths) / _DEPTH) ** 2) + _FAR  # (16, n_tensors)

    def along(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = near[:, chosen] @ logs[chosen] / near[:, chosen].sum(axis=1)
        return mean

    by_role = {role: along(roles == role) for role in sorted(set(roles.tolist()))}
    return PublishedModel(name, family, by_role | {_ANY: along(np.ones(len(logs), dtype=np.bool_))})


def expected(models: Sequence[PublishedModel], family: Family, places: Sequence[Place]) -> NDArray[np.float64]:
    """Return the logarithms of the sensitivities `(n_places,)` to be expected in a model of that family, up to a constant."""
    kin = np.array([family.kinship(model.family) for model in models])
    found: dict[Place, float] = {}
    for place in places:
        if place not in found:
            weights = kin * np.array([1.0 if place.role in model.by_role else _OTHER_ROLE for model in models])
            found[place] = float(weights @ [model.at(place) for model in models] / weights.sum())
    return np.array([found[place] for place in places])


def written(models: Sequence[PublishedModel]) -> str:
    """Return models as the text of `published_models.json`; logarithms keep two digits after the point."""
    listed = [
        {
            "name": model.name,
            "n_weights": model.family.n_weights,
            "roles": sorted(model.family.roles),
            "by_role": {role: [round(value, 2) for value in values.tolist()] for role, values in model.by_role.items()},
        }
        for model in models
    ]
    rows = ",\n".join(json.dumps(model, separators=(",", ":")) for model in listed)
    licence = "derived from their published tables; see LICENSE.Thireus beside this file"
    return f'{{"credit":{json.dumps(CREDIT)},"licence":{json.dumps(licence)},"models":[\n{rows}\n]}}\n'


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """Return the published models that come with the package."""
    return parsed(_FILE.read_text(encoding="utf-8"))


def parsed(text: str) -> tuple[PublishedModel, ...]:
    """Parse the text of `published_models.json`: the inverse of `written`, but for rounding."""
    return tuple(
        PublishedModel(
            model["name"],
            Family(frozenset(model["roles"]), model["n_weights"]),
            {role: np.array(values) for role, values in model["by_role"].items()},
        )
        for model in json.loads(text)["models"]
    )
