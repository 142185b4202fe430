"""Safetensors files that hold a model's weights: a single file, or the shards that an index names."""

from pathlib import Path

from bitwright.errors import ModelError, shown
from bitwright.spaces import TOKENIZER_BYTES, small_json

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


def weight_map(folder: Path) -> dict[str, str]:
    """Read the index of a folder, tensor → name of its shard; empty if there is no index.

    Raises:
        ModelError: the index cannot be read, or names anything but a safetensors file directly in that folder.
    """
    index = folder / INDEX
    if not index.is_file():
        return {}
    try:
        weights = small_json(index, at_most=TOKENIZER_BYTES).get("weight_map")
        if not isinstance(weights, dict) or not weights:
            raise ValueError("it has no weight_map")
        named = list(weights.values())
        wrong = [name for name in named if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors")]
        if wrong:
            raise ValueError(f"'{shown(wrong[0])}' of its weight_map is no safetensors file of its folder")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The index of a model's shards must be readable; {index} is not ({shown(error, 200)}): download or save the model again."
        ) from error
    return weights
