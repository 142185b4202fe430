"""Rules for `llama-quantize --tensor-type-file`: a regular expression, `=`, a type of ggml. Names are llama.cpp's own here.

As llama.cpp reads them (`parse_tensor_type` of its `tools/quantize`): rules stand apart by white space, several to a line if one likes; the first
`=` ends the expression, which is put into lower case and searched in the tensor's name; the first rule that is found decides. The grammar is
ECMAScript's, of which what Python reads alike is read, sets such as `[[:digit:]]` are translated, and all else is refused.
"""

import re
from collections.abc import Iterable, Mapping

from bitwright.dialects.dialect import FLOATS, Dialect, Modules, Offered, inexpressible
from bitwright.dialects.entries import require_used
from bitwright.errors import PlanError, shown
from bitwright.spaces import GGML_FORMATS, Format, Patterns

_TYPES = {form.name for form in GGML_FORMATS}
# what ECMAScript and Python read alike: an atom with its quantifier, a place, an opening, a bar
_SET = r"\[\^?(?:[^\[\]\\]|\\[dwsb]|\\[^\w\s]|\[:[a-z]+:\])+\]"
_ATOM = rf"(?:\\[dws1-9]|\\[^\w\s]|{_SET}|[^\\()\[\]{{}}.*+?|^$]|\.|\))"
_READ_ALIKE = re.compile(rf"(?:{_ATOM}(?:(?:[*+?]|\{{\d+(?:,\d*)?\}})\??)?|\\b|[\^$|]|\((?:\?[:!])?)*")
_SETS = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-\~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_NAMED_SET = re.compile(r"\[:([a-z]+):\]")


class TensorTypes(Dialect):
    """See the module; the keys of `modules` alone are used."""

    name = "llama-quantize"
    same_codes = True

    def expresses(self, formats: Iterable[Format]) -> bool:
        """See `Dialect.expresses`: quantized types of ggml."""
        return any(form.name in _TYPES and form.name not in FLOATS for form in formats)

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:  # noqa: ARG002  names are llama.cpp's own
        """See `Dialect.write`."""
        for tensor, form in formats.items():
            if form not in _TYPES:
                raise inexpressible(self.name, tensor, form, "it knows ggml's types")
        return "".join(f"^{re.escape(tensor)}$={form.lower()}\n" for tensor, form in formats.items())

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:  # noqa: ARG002  types are ggml's
        """See `Dialect.read`."""
        rules, patterns = dict(reversed([self._rule(word) for word in text.split()])), Patterns(self.name, PlanError)
        found: dict[str, str] = {}
        used = set()
        for said, form in reversed(rules.items()):
            expression = self._translated(said)
            for tensor in modules:
                if patterns.is_in(expression, tensor):
                    found.setdefault(tensor, form)
                    used.add(said)
        require_used(reversed(rules), used, self.name)
        return {tensor: found[tensor] for tensor in modules if tensor in found}

    def _rule(self, word: str) -> tuple[str, str]:
        """A rule's expression as it is written, and its format."""
        pattern, _, form = word.partition("=")
        if not pattern or form.upper() not in _TYPES:
            raise PlanError(
                f"A rule of {self.name} must be a regular expression, =, and a type of ggml, without spaces; '{shown(word)}' is not: write it as in "
                "^output\\.weight$=q6_k."
            )
        return pattern, form.upper()

    def _translated(self, pattern: str) -> str:
        """What means in Python what `pattern` means to llama.cpp.

        Raises:
            PlanError: it says what the two read differently, or a set that has no name.
        """
        lowered = pattern.lower()
        unknown = [name for name in _NAMED_SET.findall(lowered) if name not in _SETS]
        if unknown or not _READ_ALIKE.fullmatch(lowered):
            why = f"the set [:{unknown[0]}:]" if unknown else "an expression that ECMAScript and Python do not read alike"
            raise PlanError(f"{self.name} reads the regular expressions of ECMAScript; '{shown(pattern)}' has {why}: write it simpler.")
        return _NAMED_SET.sub(lambda found: _SETS[found[1]], lowered)
