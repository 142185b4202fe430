"""Files that a checkpoint ships besides its weights: those of its model's tokenizer and configuration, and no others of the folder."""

import shutil
from pathlib import Path

from bitwright.compress import open_checkpoint_files


def test_only_files_of_the_model_are_shipped(llama_tied: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama_tied, tmp_path / "model"))
    for name in ("notes.txt", "passwords.json", "trainer_state.json", "other.model", "letter.jinja"):
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    files = open_checkpoint_files(str(folder)).files
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"} <= set(files)
    assert not {"notes.txt", "passwords.json", "trainer_state.json", "other.model", "letter.jinja", "config.json"} & set(files)
