"""The prior's table: from names, the same for a matrix whole and in parts, and the contract of proxies."""

import numpy as np
import pytest

from bitwright.predictors import proxy_named
from bitwright.predictors.sensitivity.names.prior import prior, prior_table
from bitwright.predictors.sensitivity.names.published_models import CREDIT, published_models
from bitwright.spaces import Tensor, Unit, discover
from bitwright.testing.proxy_contract import ProxyContract


class TestPrior(ProxyContract):
    proxy = proxy_named("prior")


def tensors(*names: str, rows: int = 64) -> list[Tensor]:
    return [Tensor(f"{name}.weight", (rows, 64), "BF16") for name in names]


def test_it_names_those_who_measured() -> None:
    assert CREDIT in proxy_named("prior").source


def test_a_unit_of_several_tensors_has_the_sum_and_the_table_the_errors_of_the_formats() -> None:
    whole = tensors("token_embd", "blk.0.attn_q", "blk.0.attn_k", "blk.1.attn_q", "blk.1.attn_k")
    units = discover(whole)
    each = prior(published_models(), whole, units)
    (tied,) = prior(published_models(), whole, [Unit("blk.0.qk", 0, "qk", (whole[1], whole[2]))])
    assert tied == pytest.approx(each[1] + each[2])
    error = np.array([[0.0, 0.1]] * 5)
    assert prior_table(whole, units, relative_error=error) == pytest.approx(each[:, None] * error)


def test_experts_and_parts_share_what_the_whole_has() -> None:
    stack = Tensor("blk.0.ffn_up_exps.weight", (4, 64, 64), "BF16")
    single = tensors(*(f"blk.0.ffn_up_exps.{expert}" for expert in range(4)))
    (whole,) = prior(published_models(), [stack], discover([stack]))
    shares = prior(published_models(), single, discover(single))
    assert shares == pytest.approx(np.full(4, whole / 4))
    parts = [*tensors("blk.0.ffn_up.part.0", rows=48), *tensors("blk.0.ffn_up.part.1", rows=16)]
    of_parts = prior(published_models(), parts, discover(parts))
    assert of_parts[0] == pytest.approx(3 * of_parts[1])
    assert of_parts.sum() == pytest.approx(prior(published_models(), tensors("blk.0.ffn_up"), discover(tensors("blk.0.ffn_up")))[0])


def test_names_of_a_module_are_read_by_their_roles() -> None:
    named = [Tensor("model.layers.0.self_attn.q_proj.weight", (64, 64), "BF16", kind="attn_q")]
    gguf = tensors("blk.0.attn_q")
    assert prior(published_models(), named, discover(named)) == pytest.approx(prior(published_models(), gguf, discover(gguf)))
