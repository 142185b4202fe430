"""Plans in the words of other people's tools."""

from bitwright.dialects.auto_round import AutoRound
from bitwright.dialects.dialect import Dialect, Names, module_names
from bitwright.dialects.gptq_model import GptqModel
from bitwright.dialects.known import DIALECTS, dialect_named
from bitwright.dialects.llm_compressor import LlmCompressor
from bitwright.dialects.mlx import Mlx
from bitwright.dialects.tensor_types import TensorTypes

__all__ = ["DIALECTS", "AutoRound", "Dialect", "GptqModel", "LlmCompressor", "Mlx", "Names", "TensorTypes", "dialect_named", "module_names"]
