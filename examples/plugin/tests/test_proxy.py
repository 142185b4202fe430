from bitwright_example.proxy import STABLE_RANK

from bitwright.testing.proxy_contract import ProxyContract


class TestStableRank(ProxyContract):
    proxy = STABLE_RANK
