"""What may be chosen: formats, units, spaces, plans, and what each engine can hold."""

from bitwright.spaces.budget import Budget, parse_budget
from bitwright.spaces.device import Device, PowerUnknown, profile_names, read_device, read_devices
from bitwright.spaces.discover import discover, expert_of, role
from bitwright.spaces.engines import INTEGERS, LLAMA_CPP, NATIVE, TARGETS, TRANSFORMERS, VLLM, engine
from bitwright.spaces.format import DROP, GGML_FORMATS, INTEGER_FORMATS, Absence, BlockFormat, Format, IntegerFormat
from bitwright.spaces.latency import Latency, NotTimed
from bitwright.spaces.packed_format import PACKED_FORMATS, PackedFormat
from bitwright.spaces.plan import CalibratedRouters, ImportanceFile, Kept, MadeAnew, Plan, PlannedModel, Promise, Provenance, read_plan
from bitwright.spaces.rules import Breach, Fused, Rule
from bitwright.spaces.space import Choice, Choices, Space
from bitwright.spaces.target import Target
from bitwright.spaces.tie import Key, Tie, alone, by_expert, by_layer, joined, tied
from bitwright.spaces.unit import Tensor, Unit

__all__ = [
    "DROP",
    "GGML_FORMATS",
    "INTEGERS",
    "INTEGER_FORMATS",
    "LLAMA_CPP",
    "NATIVE",
    "PACKED_FORMATS",
    "TARGETS",
    "TRANSFORMERS",
    "VLLM",
    "Absence",
    "BlockFormat",
    "Breach",
    "Budget",
    "CalibratedRouters",
    "Choice",
    "Choices",
    "Device",
    "Format",
    "Fused",
    "ImportanceFile",
    "IntegerFormat",
    "Kept",
    "Key",
    "Latency",
    "MadeAnew",
    "NotTimed",
    "PackedFormat",
    "Plan",
    "PlannedModel",
    "PowerUnknown",
    "Promise",
    "Provenance",
    "Rule",
    "Space",
    "Target",
    "Tensor",
    "Tie",
    "Unit",
    "alone",
    "by_expert",
    "by_layer",
    "discover",
    "engine",
    "expert_of",
    "joined",
    "parse_budget",
    "profile_names",
    "read_device",
    "read_devices",
    "read_plan",
    "role",
    "tied",
]
