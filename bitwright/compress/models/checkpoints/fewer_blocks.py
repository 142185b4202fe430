"""Configuration and names of a checkpoint without some of its blocks, the others numbered anew.

What a configuration says of each block is a list with an item for each: kinds of attention (`layer_types`), rotary embeddings (`no_rope_layers`).
transformers makes such a list itself where `config.json` has none, by the place of a block, so a list that differs from block to block is always
written.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from bitwright.errors import ModelError
from bitwright.spaces import block_of

_COUNT = "num_hidden_layers"
_NOT_BY_BLOCK = ("architectures", "_token_id", "_token_ids")


@dataclass(frozen=True)
class BlockSettings:
    """Settings of a configuration that depend on the blocks: the key of their number, and the `lists` with an item for each, by key.

    `unknown` says why they are not known, empty where they are.
    """

    count: str
    n_blocks: int
    lists: Mapping[str, tuple[Any, ...]]
    unknown: str = ""

    def shortened(self, config: Mapping[str, Any], gone: Collection[int]) -> dict[str, Any]:
        """Return a `config.json` without the blocks that are `gone`.

        Raises:
            ModelError: its settings by block are not known.
        """
        if self.unknown:
            raise ModelError(f"Blocks are taken from the configuration of a language model; {self.unknown}: leave --structure out.")
        kept = [i for i in range(self.n_blocks) if i not in gone]
        lists = {key: [values[i] for i in kept] for key, values in self.lists.items() if key in config or len(set(map(str, values))) > 1}
        return {**config, **lists, self.count: len(kept)}


def block_settings(config: PreTrainedConfig) -> BlockSettings:
    """Return the settings of a configuration that depend on its blocks."""
    said, key = config.to_dict(), config.attribute_map.get(_COUNT, _COUNT)
    n_blocks = said.get(key)
    if config.get_text_config() is not config or not isinstance(n_blocks, int):
        return BlockSettings(key, 0, {}, f"that of {config.model_type} has another model beside it, or no number of blocks")
    by_block = {name: tuple(values) for name, values in said.items() if isinstance(values, list | tuple) and len(values) == n_blocks}
    return BlockSettings(key, n_blocks, {name: values for name, values in by_block.items() if not name.endswith(_NOT_BY_BLOCK)})


def renumbered(name: str, gone: Collection[int]) -> str:
    """Return the name of a parameter or tensor without the blocks that are `gone`, empty where it is of one of these."""
    block = block_of(name)
    if not block or not gone:
        return name
    path, _, number = block.rpartition(".")
    layer = int(number)
    return "" if layer in gone else f"{path}.{layer - sum(other < layer for other in gone)}{name[len(block) :]}"
