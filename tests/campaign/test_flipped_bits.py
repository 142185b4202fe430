"""A bit that is another in anything that a run or an artefact keeps is found, or changes nothing."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign import figures
from tests.campaign.ground import ROUNDS, SEED, WRITING, Command, laid_out, ran, results, strangers

_FIT = WRITING[0]
_CHECK = Command("check", ("check", "run/model.gguf", "--plan", "run/plan.json"), needs_run=True)
_BUILD = Command("build", ("build", "run/plan.json", "-o", "built.gguf"), needs_run=True)
_GO_ON = Command("fit", _FIT.words, needs_run=True)
_RESULTS = ("run/plan.json", "run/plan.tensor-types.txt", "run/model.gguf")


def flipped(path: Path, rng: random.Random) -> str:
    """Turn one bit of a file over, and say which."""
    data = bytearray(path.read_bytes())
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"seed {SEED}: bit {bit} of byte {at:,} of {path.name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "then"),
    [("levels/*", _GO_ON), ("imatrix.gguf", _GO_ON), ("imatrix.gguf", _BUILD), ("run.sqlite", _GO_ON), ("plan.json", _BUILD), ("model.gguf", _CHECK)],
    ids=lambda of: of if isinstance(of, str) else of.name,
)
def test_a_flipped_bit_is_found_or_harmless(
    kept: str, then: Command, ground: Path, whole: Callable[[Command], dict[str, str]], tmp_path: Path
) -> None:
    rng, found, harmless, mended = random.Random(f"{SEED} {kept} {then.name}"), 0, 0, whole(_FIT)
    built = whole(WRITING[3])["built.gguf"]
    for number in range(ROUNDS or 1):
        folder = laid_out(tmp_path / str(number), ground, then)
        plan = folder / "run" / "plan.json"
        plan.write_text(plan.read_text(encoding="utf-8").replace(str(ground), str(folder)), encoding="utf-8")
        if then is _GO_ON:  # the results are made again, of what the run keeps
            for name in ("model.gguf", "plan.json", "plan.tensor-types.txt", "report.html"):
                (folder / "run" / name).unlink()
        mine, place = strangers(folder), rng.choice(sorted((folder / "run").glob(kept)))
        which = flipped(place, rng)
        ended = ran(folder, then)
        assert ended.code in (0, 1, 2), which
        assert "Traceback" not in ended.printed, which
        assert strangers(folder) == mine
        if ended.code:
            ended.require_a_sentence()
            found += 1
        else:
            harmless += 1
            assert then is not _CHECK, which
            after = results(folder)
            if then is _GO_ON:
                assert {name: after[name] for name in _RESULTS} == {name: mended[name] for name in _RESULTS}, which
            else:
                assert after["built.gguf"] == built, which
        shutil.rmtree(folder)
    figures.note("flipped bits", f"{kept}, then {then.name}", found=found, harmless=harmless, undetected=0)
