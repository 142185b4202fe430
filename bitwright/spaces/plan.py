"""Quantization plans: the format of every tensor, with the provenance of the choice, as a JSON file that a person reads.

The JSON has a schema version. Unknown keys are refused, so a misspelt key is never silently ignored.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitwright.errors import PlanError
from bitwright.spaces.cache import CacheType, CacheTypes
from bitwright.spaces.small_file import small_text
from bitwright.spaces.structure import Structure

PLAN_BYTES = 2**26  # of the longest plan: a million tensors have some 50 MB

_SCHEMA = 2


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlannedModel(_Record):
    """Model of the plan. `fingerprint` is a SHA-256 over its tensors, and `settings` what else changes what it computes, by name: the
    keys of its configuration and the files of its tokenizer, or the metadata of its GGUF file. `quantized` says how its weights were stored, if not
    as floats: a format finer than that stores their rounding too.
    """

    source: str
    fingerprint: str
    settings: dict[str, str]
    n_weights: int = Field(gt=0)
    quantized: str = ""


class PlannedDivergence(_Record):
    """KL divergence from the original in nats per token, with its standard error over sequences, the text and its number of tokens.

    `basis` says whether this very plan was measured or the number is predicted from the sensitivity table.
    """

    nats_per_token: float
    standard_error: float
    basis: Literal["measured", "predicted"]
    text: str
    n_tokens: int


class ImportanceFile(_Record):
    """Importance matrix (imatrix) that the quantizer used: with another one the codes differ."""

    path: str
    sha256: str


class RequantizedCodes(_Record):
    """Codes that are determined by weights and importance matrix, so building the plan requantizes them.

    `searched` is the rounding method that the search measured with, `shipped` the one that makes the written codes.
    """

    codes: Literal["anew"] = "anew"
    searched: str
    shipped: str


class Kept(_Record):
    """Codes that depend on calibration text (GPTQ) and cannot be reproduced: the measured ones are in a file. Fields: see `RequantizedCodes`."""

    codes: Literal["kept"] = "kept"
    searched: str
    shipped: str
    path: str
    sha256: str


PlannedRounding = Annotated[RequantizedCodes | Kept, Field(discriminator="codes")]


class CalibratedRouters(_Record):
    """Router calibration: routers refitted to choose experts as in the original, with a ridge penalty of `ridge` tokens towards the old weights. The
    measured weights are saved in a file.
    """

    step: Literal["router-calibration"] = "router-calibration"
    ridge: float = Field(gt=0)
    path: str
    sha256: str


class MovedChannels(_Record):
    """Scales, an order or rotations of channels between matrices, by which the model computes the same with weights that are easier to quantize: the
    maps are saved in a file, and are made in the order of the steps before anything is quantized.
    """

    step: Literal["scale", "order-channels", "rotate"]
    path: str
    sha256: str


class Healed(_Record):
    """Healing: scales, minima and low-rank pairs trained on `tokens` tokens of the calibration text; the plan's codes are those after it."""

    step: Literal["heal"] = "heal"
    tokens: int = Field(gt=0)


PlannedStep = Annotated[CalibratedRouters | MovedChannels | Healed, Field(discriminator="step")]


class PlannedCache(_Record):
    """KV cache types that the plan was made for; the engine's default where the plan names none."""

    keys: CacheType = "F16"
    values: CacheType = "F16"

    @property
    def types(self) -> CacheTypes:
        """Return them as `CacheTypes`."""
        return CacheTypes(self.keys, self.values)


def planned_cache(types: CacheTypes) -> PlannedCache:
    """Return KV cache types as the plan records them."""
    return PlannedCache.model_validate({"keys": types.keys, "values": types.values})


class Compensation(_Record):
    """Compensation of what a structure takes away: output and down projections refitted, with a ridge penalty of `ridge` tokens towards the old
    weights. The refitted matrices, before they are rounded to their formats, are saved in a file.
    """

    step: Literal["compensation"] = "compensation"
    ridge: float = Field(gt=0)
    path: str
    sha256: str


class ChannelScores(_Record):
    """Scores of the channels of feed-forward parts by a published `method`, saved in a file; channels are in their order."""

    method: str
    path: str
    sha256: str


class PlannedStructure(_Record):
    """Structure of the written model: the groups of heads, the channels and the routed experts that are kept of each block; of a block of which
    neither heads nor channels are kept, nothing. Where no experts are named, all of them are kept.

    The parts named in `ordered` are in the order of what they give by the importance matrix, channels in that of their `scores` where there are any,
    and `order` is the SHA-256 of that order. What is left has the weights of its `compensation`, where there is one.
    """

    head_groups: tuple[int, ...]
    channels: tuple[int, ...]
    experts: tuple[tuple[int, ...], ...] = ()
    ordered: tuple[Literal["channels", "heads"], ...] = ()
    order: str = ""
    compensation: Compensation | None = None
    scores: ChannelScores | None = None

    @property
    def kept(self) -> Structure:
        """Return it as a `Structure`."""
        return Structure(self.head_groups, self.channels, self.experts)


class PlannedEffort(_Record):
    """Effort of a search: choices measured, tokens read forward and backward, and whole minutes."""

    evaluations: int = Field(ge=0)
    tokens: int = Field(ge=0)
    minutes: int = Field(ge=0)


class Provenance(_Record):
    """Provenance of a plan.

    `strategy` is the candidate that won, and `won` whose it is: a method's own plan, the optimum of a table, a uniform allocation, or one that was
    given. `method` is the search that found it or, where the table or a uniform allocation won, that was held against them, empty where nothing was
    searched; `effort` and `objectives` are those of that search. `calibration` and `held_out` are the texts, `versions` those of the libraries that
    have a part in the figures.
    """

    bitwright: str
    strategy: str
    sensitivity: str
    calibration: str
    seed: int
    budget: str
    won: Literal["method", "table", "uniform", "given"] = "given"
    method: str = ""
    effort: PlannedEffort = PlannedEffort(evaluations=0, tokens=0, minutes=0)
    objectives: tuple[str, ...] = ()
    held_out: str = ""
    versions: dict[str, str] = {}


class Plan(_Record):
    """Quantization plan: the format of every tensor.

    `formats` maps each quantized tensor to the name of its format; all others stay as stored. Where there is a `structure`, formats are those of the
    whole tensors, of which only a part is written. `size_bytes` is the exact size of the finished file,
    or of its parts of at most `split_max_bytes` each, where that is not 0, and `divergence` holds with the KV cache types of `cache`. `steps` move
    channels before tensors are quantized, or replace the weights of some unquantized tensors after it, in the format that they are stored in.
    """

    schema_version: Literal[2] = 2
    target: str
    target_version: str
    model: PlannedModel
    formats: dict[str, str]
    structure: PlannedStructure | None = None
    size_bytes: int = Field(gt=0)
    split_max_bytes: int = Field(default=0, ge=0)
    divergence: PlannedDivergence
    cache: PlannedCache = PlannedCache()
    importance: ImportanceFile
    rounding: PlannedRounding
    steps: tuple[PlannedStep, ...] = ()
    found: Provenance

    def to_json(self) -> str:
        """Return the plan as indented JSON, one tensor per line."""
        record = self.model_dump(mode="json")
        if self.structure is None:
            del record["structure"]
        elif self.structure.scores is None:
            del record["structure"]["scores"]
        return json.dumps(record, indent=2) + "\n"

    def to_tensor_types(self) -> str:
        """Return the plan as lines for `llama-quantize --tensor-type-file`: a regular expression that matches one tensor's name, `=`, a type."""
        return "".join(f"^{name.replace('.', chr(92) + '.')}$={form.lower()}\n" for name, form in self.formats.items())


def read_plan(path: Path) -> Plan:
    """Read a plan from a JSON file.

    Raises:
        PlanError: the file cannot be read or is not JSON, a key is unknown or missing, or a value has the wrong type.
    """
    try:
        return Plan.model_validate_json(small_text(path, at_most=PLAN_BYTES), strict=True)
    except OSError as error:
        way_out = f"write one with `bitwright plan RUN/ -o {path}`"
        raise PlanError(f"A plan must be a readable file; {path} is not ({error.strerror}): {way_out}.") from error
    except ValueError as error:
        raise PlanError(f"{path} is not a plan of schema {_SCHEMA}: {_first_fault(error)}.") from error


def _first_fault(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if not isinstance(error, ValidationError):
        return str(error)
    older = next((fault["input"] for fault in error.errors() if fault["loc"] == ("schema_version",)), _SCHEMA)
    if older == 1:
        return "it is of schema 1, which does not say all that the model computes with; make the plan again"
    fault = error.errors()[0]
    parts = [str(part) for part in fault["loc"]]
    if parts[:1] == ["rounding"]:  # the next part names which of the two record types it is
        del parts[1:2]
    if parts[:1] == ["steps"]:  # the third does
        parts[2:3] = ["step"] if fault["type"].startswith("union_tag") else []
    where = ".".join(parts)
    if fault["type"] == "extra_forbidden":
        return f"it has the unknown key '{where}'; remove it or correct its spelling"
    if fault["type"] == "json_invalid":
        return f"it is not valid JSON ({fault['ctx']['error'] if 'ctx' in fault else fault['msg']})"
    return f"'{where or 'the whole file'}': {fault['msg'].lower()}"
