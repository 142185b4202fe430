import numpy as np

from bitwright.pipeline.searching.sieved_parts import all_blocks, least_influential
from bitwright.spaces import STRUCTURE_KINDS


def test_the_half_with_the_least_influence_of_the_part_is_measured() -> None:
    attention, feed_forward, blocks = [0.5, 0.1, 0.3, 0.2, 0.4], [0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.2, 0.9, 0.1, 0.3]
    tried = least_influential(np.array([attention, feed_forward, blocks]).T)
    assert {kind: sorted(of_kind) for kind, of_kind in tried.items()} == {
        "attention": [1, 2, 3],
        "heads": [1, 2, 3],
        "channels": [0, 1, 2],
        "layers": [1, 3, 4],
    }


def test_every_kind_of_part_has_its_blocks() -> None:
    assert {*all_blocks(3)} | {"experts"} == {*STRUCTURE_KINDS}  # experts are chosen by their saliency
    assert [*all_blocks(3)["heads"]] == [0, 1, 2]
