from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Model, PackedTensors, applied, integer_codec, load, planned_weights
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.rounding import RoundToNearest
from bitwright.engines.no_engine import INTEGERS
from bitwright.objectives import collect_moments
from bitwright.pipeline.finishing.blockwise_gptq import sequential_gptq
from bitwright.progress import Silent
from bitwright.spaces import Format, discover
from tests.measuring import random_tokens, weights_of

TOKENS = random_tokens(10, 12)


def formats_of(model: Model) -> dict[str, Format]:
    return {tensor.name: INTEGERS.format("INT3_G32") for unit in discover(model.tensors) for tensor in unit.tensors}


def run(model: Model, folder: Path) -> dict[str, Mapping[str, Floats]]:
    """The moments with which each tensor was rounded; the packed bytes are in `folder`."""
    seen: dict[str, Mapping[str, Floats]] = {}

    def levels(moments: Mapping[str, Floats]) -> PackedTensors:
        seen.update(dict.fromkeys(moments, moments))
        return PackedTensors(folder, model.source, integer_codec(Gptq(moments)), {})

    before = weights_of(model)
    with sequential_gptq(model, formats_of(model), TOKENS, levels=levels, progress=Silent()):
        during = weights_of(model)
    after = weights_of(model)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    kept = PackedTensors(folder, model.source, integer_codec(RoundToNearest()), {})
    with applied(model, planned_weights(model, kept, formats=formats_of(model))):
        assert all(torch.equal(during[name], weight) for name, weight in weights_of(model).items())
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("which", ["llama_tied", "llama_gqa", "tiny_mixtral"])
def test_every_block_sees_the_error_of_those_before_it(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = load(str(request.getfixturevalue(which)))
    seen = run(model, tmp_path / "levels")
    kept = PackedTensors(tmp_path / "levels", model.source, integer_codec(RoundToNearest()), {})
    for layer in range(2):
        earlier = {name: form for name, form in formats_of(model).items() if name == "token_embd.weight" or f"blk.{layer}." > name >= "blk."}
        name = f"blk.{layer}.attn_q.weight"
        with torch.no_grad(), applied(model, planned_weights(model, kept, formats=earlier)), collect_moments(model, [name]) as found:
            for ids in TOKENS.batches(8):
                model.module(torch.from_numpy(ids), use_cache=False)
        np.testing.assert_allclose(seen[name][name], found[name], rtol=1e-3, atol=1e-4)


def test_every_tensor_is_rounded_once_and_what_is_looked_up_first(llama_gqa: Path, tmp_path: Path) -> None:
    model = load(str(llama_gqa))
    seen = run(model, tmp_path / "levels")
    assert set(seen) == set(formats_of(model)) - {"token_embd.weight"}
    assert {path.name for path in (tmp_path / "levels").iterdir()} == {f"{name}.INT3_G32" for name in formats_of(model)}
