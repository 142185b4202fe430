"""Rules that every message to a user keeps."""

from bitwright.errors import BitwrightError


def sentence(error: BaseException, *values: object) -> str:
    """Return the message of an error, and require one line and a whole sentence that names each of `values`."""
    assert isinstance(error, BitwrightError), repr(error)
    message = str(error)
    assert "\n" not in message, message
    assert message.endswith((".", "?")), message
    assert "(None)" not in message, message
    assert message[0].isalnum() or message[0] == "/", message
    for value in values:
        assert str(value) in message, f"{value} is not in: {message}"
    return message
