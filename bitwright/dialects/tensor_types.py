"""Lines of `llama-quantize --tensor-type-file` as a dialect: a regular expression, `=`, a ggml type. The first expression found in the tensor's name
decides. Names are llama.cpp's own.
"""

import re
from collections.abc import Mapping

from bitwright.dialects.dialect import Dialect, Modules, Offered, inexpressible
from bitwright.errors import PlanError
from bitwright.spaces import GGML_FORMATS

_TYPES = {form.name for form in GGML_FORMATS}


class TensorTypes(Dialect):
    """See the module; the keys of `modules` alone are used."""

    name = "llama-quantize"
    same_codes = True

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:  # noqa: ARG002  names are llama.cpp's own
        """See `Dialect.write`."""
        for tensor, form in formats.items():
            if form not in _TYPES:
                raise inexpressible(self.name, tensor, form, "it knows ggml's types")
        return "".join(f"^{re.escape(tensor)}$={form.lower()}\n" for tensor, form in formats.items())

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:  # noqa: ARG002  types are ggml's
        """See `Dialect.read`."""
        rules = [self._rule(line.strip()) for line in text.splitlines() if line.strip()]
        found = {tensor: next((form for pattern, form in rules if pattern.search(tensor)), "") for tensor in modules}
        return {tensor: form for tensor, form in found.items() if form}

    def _rule(self, line: str) -> tuple[re.Pattern[str], str]:
        pattern, _, form = line.rpartition("=")
        if not pattern or form.upper() not in _TYPES:
            raise PlanError(f"A line must be a regular expression, =, and a type of ggml; '{line}' is not: write it as in ^output\\.weight$=q6_k.")
        try:
            return re.compile(pattern), form.upper()
        except re.error as error:
            raise PlanError(f"A line must begin with a regular expression; '{pattern}' is none ({error}): correct it.") from error
