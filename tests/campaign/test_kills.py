"""Commands that are killed at any moment, and given again: the same plan, nothing finished done twice, nothing half-written, nothing left, and what
was not Bitwright's as it was.
"""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign import figures
from tests.campaign.ground import PROFILE, ROUNDS, SECONDS, SEED, WRITING, Command, evaluated, half_written, laid_out, left, ran, results, strangers
from tests.processes import process
from tests.work import command

_LONGEST = {"fit": 2.5, "search": 1.5, "import": 1.5, "order": 1.0}  # seconds from the first moment to the last at which it is killed


@pytest.mark.slow
@pytest.mark.parametrize("of", WRITING, ids=lambda of: of.name)
def test_a_killed_command_ends_as_if_it_had_not_been(of: Command, ground: Path, whole: Callable[[Command], dict[str, str]], tmp_path: Path) -> None:
    folder, rng = laid_out(tmp_path / "work", ground, of), random.Random(f"{SEED} {of.name}")
    mine, killed, finished_first = strangers(folder), 0, 0
    for number in range(ROUNDS or 1):
        if number % 8 == 0:
            folder = laid_out(tmp_path / f"work {number}", ground, of)
        before = evaluated(folder)
        with process(command, list(of.words), folder, tmp_path / "printed") as running:
            next(running.news(SECONDS))
            time.sleep(rng.random() * _LONGEST.get(of.name, 0.5))
            running.send(rng.choice((signal.SIGKILL, signal.SIGTERM)))
            code = running.exit_code(SECONDS)
        killed, finished_first = killed + (code != 0), finished_first + (code == 0)
        assert code in (0, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL), (tmp_path / "printed").read_text()
        assert "Traceback" not in (tmp_path / "printed").read_text()
        assert not half_written(folder, whole(of))
        assert before.items() <= evaluated(folder).items(), "what was finished was done again"
        assert strangers(folder) == mine
        if number % 8 == 7 or number == (ROUNDS or 1) - 1:
            _require_whole(folder, of, whole(of), mine)
    figures.note("kills", of.name, kills=killed, finished_first=finished_first, lost=0)


def _require_whole(folder: Path, of: Command, whole: dict[str, str], mine: dict[str, str]) -> None:
    before = evaluated(folder)
    ended = ran(folder, of)
    assert ended.code == 0, ended.printed
    assert results(folder) == whole
    assert before.items() <= evaluated(folder).items(), "what was finished was done again"
    assert strangers(folder) == mine
    assert not left(folder)


@pytest.mark.skipif(not ROUNDS, reason="timing a machine takes half a minute: make campaign")
def test_a_killed_profile_leaves_nothing(ground: Path, tmp_path: Path) -> None:
    folder, rng = laid_out(tmp_path / "work", ground, PROFILE), random.Random(SEED)
    mine = strangers(folder)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        with process(command, list(PROFILE.words), folder, tmp_path / "printed") as running:
            next(running.news(SECONDS))
            time.sleep(0.5 + 3 * rng.random())
            running.send(number)
            running.exit_code(SECONDS)
        assert not (folder / "here.toml").exists()
        assert strangers(folder) == mine
    ended = ran(folder, PROFILE)
    assert ended.code == 0, ended.printed
    assert (folder / "here.toml").is_file()
    assert not left(folder)
    figures.note("kills", "profile", kills=3, finished_first=0, lost=0)
