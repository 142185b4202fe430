"""What an engine asks of a choice beyond the shapes: formats that it refuses to some tensors, and tensors that it keeps in one format.

A rule is a value with the place where it was read, so that it can be shown, checked before any work, and priced.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bitwright.spaces.discover import role
from bitwright.spaces.format import Format
from bitwright.spaces.tie import Key
from bitwright.spaces.unit import Tensor, Unit


@dataclass(frozen=True)
class Rule:
    """Tensors whose role matches the regular expression `roles` may not have a format that `refuses` is true for.

    `sentence` says so in words, `source` where that was read.
    """

    name: str
    roles: str
    refuses: Callable[[Format], bool]
    sentence: str
    source: str

    def allows(self, kind: str, form: Format) -> bool:
        """Whether a tensor of that role may have the format."""
        return not (re.fullmatch(self.roles, kind) and self.refuses(form))


@dataclass(frozen=True)
class Fused:
    """Units of the same `key` are in one format."""

    name: str
    key: Key
    sentence: str
    source: str


@dataclass(frozen=True)
class Breach:
    """A tensor that breaks a rule, and what of it does."""

    tensor: str
    fault: str
    rule: str
    source: str


def broken_rules(rules: tuple[Rule, ...], tensors: Mapping[str, Tensor], formats: Mapping[str, Format]) -> list[Breach]:
    """The tensors whose format their role is refused."""
    return [
        Breach(name, f"{form.name} for {role(name)}", rule.sentence, rule.source)
        for name, form in formats.items()
        for rule in rules
        if not rule.allows(role(tensors[name].name), form)
    ]


def split_ties(fused: tuple[Fused, ...], units: tuple[Unit, ...], formats: Mapping[str, Format]) -> list[Breach]:
    """The groups that are in more than one format, told at the first tensor that differs from the first."""
    found = []
    for tie in fused:
        first: dict[str, tuple[str, str]] = {}
        told: set[str] = set()
        for unit in units:
            for tensor in unit.tensors:
                form = formats[tensor.name].name if tensor.name in formats else tensor.stored
                name, before = first.setdefault(tie.key(unit), (tensor.name, form))
                if form != before and tie.key(unit) not in told:
                    told.add(tie.key(unit))
                    found.append(Breach(tensor.name, f"{form}, and {name} has {before}", tie.sentence, tie.source))
    return found
