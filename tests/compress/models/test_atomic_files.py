"""Files that are whole or not there."""

from pathlib import Path

import pytest

from bitwright.compress import replacing


def test_the_name_is_taken_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")
    with replacing(path) as part:
        part.write_text("newer")
        assert path.read_text() == "older"
        assert part.parent == tmp_path
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "newer"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_the_block_raises(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")

    def interrupted() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "older"


def test_the_error_is_that_of_the_block_also_where_nothing_was_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotADirectoryError), replacing(tmp_path / "file" / "a.txt") as part:
        part.write_text("never")
