from typing import ClassVar

from bitwright_example.format import INTEGER_NF4, NF4

from bitwright.testing.codec_contract import CodecContract
from bitwright.testing.format_contract import FormatContract


class TestFormat(FormatContract):
    formats = (NF4,)


class TestCodec(CodecContract):
    codec = INTEGER_NF4.codec("rtn", {})
    formats = (NF4,)
    worst: ClassVar = {"NF4": 0.012}
