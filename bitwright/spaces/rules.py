"""Rules of an engine: formats that it cannot load for some tensors, and fused tensors that must share one format.

A rule is a value with its source, so that it can be shown, checked before any work, and priced.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bitwright.spaces.discover import role_of
from bitwright.spaces.format import Format
from bitwright.spaces.tie import Key
from bitwright.spaces.unit import Tensor, Unit


@dataclass(frozen=True)
class Rule:
    """Rule that a tensor whose role matches the regular expression `roles` must not have a format for which `refuses` is true.

    `sentence` states it in words, `source` says where it was read. With `initialised`, it is for such tensors alone (see `Tensor`).
    """

    name: str
    roles: str
    refuses: Callable[[Format], bool]
    sentence: str
    source: str
    initialised: bool = False

    def allows(self, tensor: Tensor, form: Format) -> bool:
        """Return whether a tensor may have the format."""
        concerned = tensor.initialised or not self.initialised
        return not (concerned and re.fullmatch(self.roles, role_of(tensor)) and self.refuses(form))


@dataclass(frozen=True)
class Fused:
    """Rule that units with the same `key` (fused q/k/v, gate/up) must have one format."""

    name: str
    key: Key
    sentence: str
    source: str


@dataclass(frozen=True)
class RuleViolation:
    """Violation of a rule: the tensor, the fault, the rule and its source."""

    tensor: str
    fault: str
    rule: str
    source: str


def format_violations(rules: tuple[Rule, ...], tensors: Mapping[str, Tensor], formats: Mapping[str, Format]) -> list[RuleViolation]:
    """Return a violation for each tensor whose format a rule refuses for its role."""
    return [
        RuleViolation(name, f"{form.name} for {role_of(tensors[name])}", rule.sentence, rule.source)
        for name, form in formats.items()
        for rule in rules
        if not rule.allows(tensors[name], form)
    ]


def fused_violations(fused: tuple[Fused, ...], units: tuple[Unit, ...], formats: Mapping[str, Format]) -> list[RuleViolation]:
    """Return a violation for each fused group with more than one format, at the first tensor that differs from the group's first."""
    found = []
    for tie in fused:
        first: dict[str, tuple[str, str]] = {}
        reported: set[str] = set()
        for unit in units:
            for tensor in unit.tensors:
                form = formats[tensor.name].name if tensor.name in formats else tensor.stored
                name, before = first.setdefault(tie.key(unit), (tensor.name, form))
                if form != before and tie.key(unit) not in reported:
                    reported.add(tie.key(unit))
                    found.append(RuleViolation(tensor.name, f"{form}, and {name} has {before}", tie.sentence, tie.source))
    return found
