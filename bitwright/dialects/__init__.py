"""Plans in the words of other people's tools."""

from bitwright.dialects.auto_round import AutoRound
from bitwright.dialects.dialect import Dialect, Module, Modules, modules_of
from bitwright.dialects.gptq_model import GptqModel
from bitwright.dialects.known import DIALECTS, dialect_named
from bitwright.dialects.llm_compressor import LlmCompressor
from bitwright.dialects.mlx import Mlx
from bitwright.dialects.tensor_types import TensorTypes

__all__ = ["DIALECTS", "AutoRound", "Dialect", "GptqModel", "LlmCompressor", "Mlx", "Module", "Modules", "TensorTypes", "dialect_named", "modules_of"]
