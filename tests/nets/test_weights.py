"""Weights in one file or many: equal however they are cut, and every kind of damage refused by name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rung.errors import RunFolderError
from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.pretrained import load_net, read_config_file, save_net
from rung.nets.weights import open_weights, weight_files

CONFIG = DecoderConfig(
    vocab_size=23,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=32,
)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    save_net(CausalLM(CONFIG), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def sharded(whole: Path) -> Path:
    """The same weights in two files with an index, as transformers writes large models."""
    tensors = load_file(whole / "model.safetensors")
    names = sorted(tensors)
    shards = {FIRST: names[::2], SECOND: names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, whole / file, metadata={"format": "pt"})
    write_index(whole, {name: file for file, held in shards.items() for name in held})
    (whole / "model.safetensors").rename(whole.parent / "moved")
    return whole


def write_index(folder: Path, files: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def index_of(folder: Path) -> dict[str, str]:
    files: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return files


def test_shards_hold_what_one_file_holds(sharded: Path) -> None:
    expected = load_file(sharded.parent / "moved")
    with open_weights(sharded) as weights:
        assert weights.names() == expected.keys()
        for name, tensor in expected.items():
            assert weights.shape(name) == tensor.shape
            assert torch.equal(weights.read(name, torch.float32), tensor)
    assert [path.name for path in weight_files(sharded)] == [FIRST, SECOND]
    for name, p in load_net(sharded).named_parameters():
        assert torch.equal(p, expected[name]), name


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_every_stored_dtype_is_converted_as_torch_does(
    stored: torch.dtype, wanted: torch.dtype, tmp_path: Path
) -> None:
    tensor = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(stored)
    save_file({"a": tensor}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as weights:
        assert weights.dtype("a") == stored
        read = weights.read("a", wanted)
    assert read.dtype == wanted
    assert torch.equal(read, tensor.to(wanted))


def test_a_tensor_in_its_own_dtype_is_the_mapped_file_itself(whole: Path) -> None:
    with open_weights(whole) as weights:
        name = sorted(weights.names())[0]
        first = weights.read(name, torch.float32)
        assert first.data_ptr() == weights.read(name, torch.float32).data_ptr()


_LOAD = """
import re, sys
from pathlib import Path
from rung.nets.pretrained import load_net
def kib(field): return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = kib("VmRSS")
net = load_net(Path(sys.argv[1]))
print(kib("VmHWM") - before, sum(p.numel() for p in net.parameters()) * 4 // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_model_is_never_held_twice(tmp_path: Path) -> None:
    large = dataclasses.replace(
        CONFIG, vocab_size=30_000, hidden_size=512, intermediate_size=2048, num_hidden_layers=16
    )
    save_net(CausalLM(large), tmp_path, dtype=torch.bfloat16)
    done = subprocess.run([sys.executable, "-c", _LOAD, str(tmp_path)], capture_output=True, text=True, check=True)
    peak, model = map(int, done.stdout.split())
    stored = (tmp_path / "model.safetensors").stat().st_size // 1024
    # The file's pages are mapped, so they count too; twice in memory would be `model` more.
    assert peak < 1.15 * model + stored


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / SECOND).unlink()
    with pytest.raises(RunFolderError, match=f"1 of 2 weight files are missing: {SECOND}"):
        open_weights(sharded)


def test_an_index_that_promises_what_a_shard_lacks_is_refused(sharded: Path) -> None:
    write_index(sharded, {**index_of(sharded), "model.more.weight": FIRST})
    with pytest.raises(RunFolderError, match=rf"{FIRST} does not fit .* it lacks model\.more\.weight"):
        open_weights(sharded)


def test_a_shard_that_holds_more_than_the_index_says_is_refused(sharded: Path) -> None:
    files = index_of(sharded)
    del files["model.norm.weight"]
    write_index(sharded, files)
    with pytest.raises(RunFolderError, match=r"does not fit .* it holds beyond it model\.norm\.weight"):
        open_weights(sharded)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_truncated_shard_is_named(sharded: Path, kept: int) -> None:
    path = sharded / SECOND
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunFolderError, match=f"cannot read {SECOND}"):
        open_weights(sharded)


@pytest.mark.parametrize(
    "file",
    [
        "../outside.safetensors",
        "/etc/model.safetensors",
        "..\\outside.safetensors",
        "a/b.safetensors",
        "..",
        "",
        "x.bin",
    ],
)
def test_an_index_cannot_point_out_of_its_folder(sharded: Path, file: str) -> None:
    save_file({"model.norm.weight": torch.ones(16)}, sharded.parent / "outside.safetensors")
    write_index(sharded, {**index_of(sharded), "model.norm.weight": file})
    with pytest.raises(RunFolderError, match="no safetensors file of the same folder"):
        open_weights(sharded)


@pytest.mark.parametrize("content", ["[1, 2", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "\udcff"])
def test_a_damaged_index_is_refused(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match=r"index\.json"):
        open_weights(sharded)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool])
def test_other_dtypes_are_refused_by_name(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"a": torch.ones(3).to(dtype)}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as weights, pytest.raises(RunFolderError, match="tensor a is "):
        weights.read("a", torch.float32)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model.bin.index.json", "weights.pt", "model.ckpt"])
def test_pickles_are_refused_with_the_way_out(whole: Path, file: str) -> None:
    (whole / "model.safetensors").rename(whole / file)
    with pytest.raises(RunFolderError, match="a pickle") as caught:
        load_net(whole)
    assert "safe_serialization=True" in (caught.value.hint or "")


def test_a_folder_without_weights_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no model\.safetensors") as caught:
        open_weights(tmp_path)
    assert "model.gguf" in (caught.value.hint or "")


def test_a_folder_that_brings_code_is_refused(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Mine"}}))
    with pytest.raises(RunFolderError, match="auto_map asks to run Python code"):
        read_config_file(whole)
