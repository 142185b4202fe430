"""Rules for `llama-quantize --tensor-type-file`: a regular expression, `=`, a type of ggml. Names are llama.cpp's own here.

Semantics as in llama.cpp (`parse_tensor_type` of its `tools/quantize`): rules are separated by white space; the first `=` ends the expression, which
is lower-cased and searched in the tensor's name; the first match decides. The grammar is ECMAScript's: syntax that Python reads alike is accepted,
sets such as `[[:digit:]]` are translated, and anything else is refused.
"""

import re
from collections.abc import Iterable, Mapping

from bitwright.dialects.dialect import FLOATS, Dialect, Modules, Offered, inexpressible
from bitwright.dialects.entries import require_used
from bitwright.errors import PlanError, shown
from bitwright.spaces import GGML_FORMATS, Format, Patterns

_TYPES = {form.name for form in GGML_FORMATS}
# syntax that ECMAScript and Python read alike: an atom with its quantifier, an anchor, an opening, a bar
_SET = r"\[\^?(?:[^\[\]\\]|\\[dwsb]|\\[^\w\s]|\[:[a-z]+:\])+\]"
_ATOM = rf"(?:\\[dws]|\\[^\w\s]|{_SET}|[^\\()\[\]{{}}.*+?|^$]|\.|\))"
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
_BETWEEN = re.compile(r"[ \t\n\v\f\r]+")  # white space of C, without that of Unicode
_NAMED_SET = re.compile(r"\[:([a-z]+):\]")


class TensorTypes(Dialect):
    """Rules of llama-quantize's `--tensor-type-file`; of `modules` only the keys are used."""

    name = "llama-quantize"
    same_codes = True

    def expresses(self, formats: Iterable[Format]) -> bool:
        """Return whether any of the `formats` is a quantized type of ggml."""
        return any(form.name in _TYPES and form.name not in FLOATS for form in formats)

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:  # noqa: ARG002  names are llama.cpp's own
        """Return a line `^tensor$=type` for each tensor."""
        for tensor, form in formats.items():
            if form not in _TYPES:
                raise inexpressible(self.name, tensor, form, "it knows ggml's types")
        return "".join(f"^{re.escape(tensor)}$={form.lower()}\n" for tensor, form in formats.items())

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:  # noqa: ARG002  types are ggml's
        """Parse rules `expression=type`, of which the first that is found in a tensor's name holds."""
        rules, patterns = dict(reversed([self._rule(word) for word in _BETWEEN.split(text) if word])), Patterns(self.name, PlanError)
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
        """Split a rule into its expression, unchanged, and its format."""
        pattern, _, form = word.partition("=")
        if not pattern or form.upper() not in _TYPES:
            raise PlanError(
                f"A rule of {self.name} must be a regular expression, =, and a type of ggml, without spaces; '{shown(word)}' is not: write it as in "
                "^output\\.weight$=q6_k."
            )
        return pattern, form.upper()

    def _translated(self, pattern: str) -> str:
        """Translate a regular expression of llama.cpp to Python.

        Raises:
            PlanError: the two read it differently, or it has an unknown character class.
        """
        lowered = pattern.lower()
        unknown = [name for name in _NAMED_SET.findall(lowered) if name not in _SETS]
        if unknown or not _READ_ALIKE.fullmatch(lowered):
            why = f"the set [:{unknown[0]}:]" if unknown else "an expression that ECMAScript and Python do not read alike"
            raise PlanError(f"{self.name} reads the regular expressions of ECMAScript; '{shown(pattern)}' has {why}: write it simpler.")
        return _NAMED_SET.sub(lambda found: _SETS[found[1]], lowered)
