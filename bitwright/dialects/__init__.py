"""Plans in the words of other people's tools."""

from bitwright.dialects.auto_round import AutoRound
from bitwright.dialects.dialect import Dialect, Integers, Module, Modules, Offered, modules_of, offered_by
from bitwright.dialects.gptq_model import GptqModel
from bitwright.dialects.known import DIALECTS, dialect_named
from bitwright.dialects.llm_compressor import LlmCompressor
from bitwright.dialects.mlx import Mlx
from bitwright.dialects.model_opt import ModelOpt
from bitwright.dialects.tensor_types import TensorTypes

__all__ = [
    "DIALECTS",
    "AutoRound",
    "Dialect",
    "GptqModel",
    "Integers",
    "LlmCompressor",
    "Mlx",
    "ModelOpt",
    "Module",
    "Modules",
    "Offered",
    "TensorTypes",
    "dialect_named",
    "modules_of",
    "offered_by",
]
