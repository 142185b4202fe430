"""Registry of the dialects by name."""

from bitwright.dialects.auto_round import AutoRound
from bitwright.dialects.dialect import Dialect
from bitwright.dialects.evopress_pruning import SHARES, EvoPressPruning
from bitwright.dialects.gptq_model import GptqModel
from bitwright.dialects.llm_compressor import LlmCompressor
from bitwright.dialects.mlx import Mlx
from bitwright.dialects.model_opt import ModelOpt
from bitwright.dialects.tensor_types import TensorTypes
from bitwright.errors import UserError

_ALL: tuple[Dialect, ...] = (AutoRound(), GptqModel(), LlmCompressor(), Mlx(), ModelOpt(), TensorTypes(), *map(EvoPressPruning, SHARES))
DIALECTS = {dialect.name: dialect for dialect in _ALL}


def dialect_named(name: str) -> Dialect:
    """Return the dialect called `name`.

    Raises:
        UserError: there is no dialect of that name.
    """
    if name not in DIALECTS:
        raise UserError(f"A dialect must be a known one; '{name}' is not: choose from {', '.join(DIALECTS)}.")
    return DIALECTS[name]
