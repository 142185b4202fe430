"""Every family by its name."""

from benchmarks.families.dense import DENSE
from benchmarks.families.family import Family
from benchmarks.families.further import FURTHER
from benchmarks.families.hybrid import HYBRID
from benchmarks.families.routed import ROUTED
from benchmarks.families.wrappers import WRAPPERS

FAMILIES: dict[str, Family] = {family.name: family for family in (*DENSE, *ROUTED, *HYBRID, *WRAPPERS, *FURTHER)}
