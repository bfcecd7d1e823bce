"""Weights are what they were, and no checkpoint brings code along."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from llavachat_server.engine import provenance
from llavachat_server.engine.checkpoint import (
    Checkpoint,
    LoadingError,
    read_facts,
)
from llavachat_server.engine.fingerprint import Fingerprint, hash_weights
from llavachat_server.engine.provenance import check_provenance
from llavachat_server.profiles import SHAPES_FOLDER

REVISION = "0" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to change."""
    return Path(shutil.copytree(SHAPES_FOLDER, tmp_path / "checkpoint"))


def check(folder: Path, records: Path) -> None:
    """Load it from a hub, as far as its hashes go."""
    checkpoint = Checkpoint(folder, "owner/name", REVISION)
    check_provenance(checkpoint, hash_weights(folder), records)


def test_a_hubs_model_is_what_it_was_at_its_first_load(folder: Path, tmp_path: Path) -> None:
    """Recorded once; refused when a byte has changed; accepted when the operator says so."""
    records = tmp_path / "models"
    check(folder, records)
    check(folder, records)
    (record,) = records.iterdir()
    assert hash_weights(folder) == json.loads(record.read_text())["weights"]

    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(LoadingError, match=r"^weights of owner/name changed since .* remove /"):
        check(folder, records)
    record.unlink()
    check(folder, records)


def test_the_template_and_the_tokenizer_count_too(folder: Path, tmp_path: Path) -> None:
    """They shape every answer as the weights do."""
    check(folder, tmp_path / "models")
    (folder / "chat_template.jinja").write_text("{{ 'Obey.' }}")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(LoadingError, match=r"chat_template\.jinja, tokenizer_config\.json of"):
        check(folder, tmp_path / "models")


def test_a_record_that_is_broken_is_told(folder: Path, tmp_path: Path) -> None:
    """And is not taken for a model that is new."""
    check(folder, tmp_path / "models")
    (record,) = (tmp_path / "models").iterdir()
    record.write_text("[")
    with pytest.raises(LoadingError, match="can not be read: JSONDecodeError"):
        check(folder, tmp_path / "models")


def test_the_operators_own_folder_is_not_recorded(folder: Path, tmp_path: Path) -> None:
    """Who trains a model changes it."""
    check_provenance(Checkpoint(folder, "mine", ""), hash_weights(folder), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_embedded_model_is_what_the_wheel_was_built_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hashes that pip keeps of every installed file."""
    sha256 = hash_weights(SHAPES_FOLDER)
    checkpoint = Checkpoint(SHAPES_FOLDER, "shapes", "")
    weights = (SHAPES_FOLDER / "model.safetensors").resolve()
    monkeypatch.setattr(provenance, "read_build_record", lambda: {weights: sha256})
    check_provenance(checkpoint, sha256, None)
    monkeypatch.setattr(provenance, "read_build_record", lambda: {weights: "0" * 64})
    with pytest.raises(LoadingError, match="is not what llavachat was built with"):
        check_provenance(checkpoint, sha256, None)


def test_pips_record_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hashes are base64 without padding; here, of a package that is surely installed."""
    monkeypatch.setattr(provenance, "_DISTRIBUTION", "pytest")
    record = provenance.read_build_record()
    path = Path(pytest.__file__).resolve()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record[path]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_refused(folder: Path, name: str) -> None:
    """It says what it is, why it is not read, and what would be."""
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(LoadingError, match=r"are a pickle \(.*\), which could run any code; conv"):
        read_facts(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_of_a_checkpoint_is_refused(folder: Path, name: str) -> None:
    """Whichever file asks for it; and the code that lies beside it is never run."""
    (folder / "evil.py").write_text("raise SystemExit('run')\n")
    path = folder / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(LoadingError, match=r"asks for code of its own to be run \(auto_map\)"):
        read_facts(folder)


def test_nothing_in_the_server_trusts_remote_code() -> None:
    """No call says otherwise, and none unpickles."""
    sources = (SHAPES_FOLDER.parent.parent).rglob("*.py")
    text = "\n".join(path.read_text() for path in sources)
    assert "trust_remote_code=True" not in text
    assert "torch.load(" not in text
    assert "pickle.load" not in text


def test_a_fingerprint_is_the_hash_of_the_files(tmp_path: Path) -> None:
    """Begun now and asked for later, more than once; what can not be read is told who asks."""
    fingerprint = Fingerprint(SHAPES_FOLDER)
    assert hash_weights(SHAPES_FOLDER) == fingerprint.result() == fingerprint.result()

    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        Fingerprint(tmp_path).result()
