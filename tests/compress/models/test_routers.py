from pathlib import Path

import torch

from bitwright.compress import load, router_parameters


def test_the_routers_of_a_mixture(tiny_mixtral: Path, llama_96: Path) -> None:
    mixture = load(str(tiny_mixtral))
    found = router_parameters(mixture)
    assert sorted(found) == [0, 1]
    for layer, name in found.items():
        assert torch.equal(mixture.module.get_parameter(name), mixture.module.model.layers[layer].mlp.gate.weight)
    assert router_parameters(load(str(llama_96))) == {}
