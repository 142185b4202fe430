"""Identity of workers: what differs is named."""

from bitwright.pipeline.workers.bench import identity_of


def test_a_worker_says_what_differs() -> None:
    here = identity_of("abc")
    assert here.difference(identity_of("abc")) == ""
    assert here.difference(identity_of("abd")) == "model abc, not abd"
