"""`quantization_config` of a native checkpoint in `config.json`: the schema, and the format of every packed layer.

A layer of a dropped expert has the format `DROP`, or `DROP 3` if expert 3 of its block takes its tokens; pruned channels have `PRUNE`,
and so has the attention of a block that was taken away, by the name of its module.
"""

from collections.abc import Mapping
from typing import Any

from bitwright.errors import ModelError
from bitwright.spaces import DROP, NATIVE_FORMATS, PRUNE, DroppedExpert, Format, share_format

METHOD = "bitwright"
SCHEMA = 1
_FORMS = {form.name: form for form in NATIVE_FORMATS}


def native_settings(layers: Mapping[str, Format]) -> dict[str, Any]:
    """Return the settings of a checkpoint with these packed layers."""
    return {"quant_method": METHOD, "schema": SCHEMA, "formats": {layer: _name(form) for layer, form in layers.items()}}


def native_formats(settings: Mapping[str, Any]) -> dict[str, Format]:
    """Return the format of each packed layer: the inverse of `native_settings`.

    Raises:
        ModelError: the checkpoint is not native, has a newer schema, or has an unknown setting or format.
    """
    method, schema, formats = settings.get("quant_method"), settings.get("schema"), settings.get("formats")
    if method != METHOD:
        raise ModelError(f"A native checkpoint must have the quant_method '{METHOD}'; this one has '{method}': load it without bitwright.")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ModelError(
            f"A native checkpoint must be of schema {SCHEMA} or older to be read by this version; this one is of schema {schema}: update bitwright."
        )
    unknown = sorted(set(settings) - {"quant_method", "schema", "formats"})
    if unknown or not isinstance(formats, Mapping):
        fault = f"also '{unknown[0]}'" if unknown else "no formats"
        raise ModelError(f"The settings of a native checkpoint are quant_method, schema and formats; this one has {fault}: build it again.")
    return {layer: _form(layer, str(name)) for layer, name in formats.items()}


def _name(form: Format) -> str:
    return f"{form.name} {form.replacement}" if isinstance(form, DroppedExpert) and form.replacement >= 0 else form.name


def _form(layer: str, name: str) -> Format:
    first, _, replacement = name.partition(" ")
    if first == DROP.name and (replacement.isdecimal() or name == first):
        return DroppedExpert(replacement=int(replacement or -1))
    if name == PRUNE.name:
        return PRUNE
    made = _FORMS.get(name) or share_format(name)
    if made is None:
        raise ModelError(f"Every layer must be in a format of schema {SCHEMA}; {layer} is in '{name}': correct config.json, or update bitwright.")
    return made
