"""Checkpoints: damage is found and named, an older one is only used aloud, a full disk harms nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from training_toy import Watching, toy_run, toy_settings, weights

from rung.errors import RunFolderError
from rung.runfolder import read_header, verify
from rung.training.checkpoint import checkpoints, latest_good, load_checkpoint, pre_decay
from rung.training.metrics_log import MetricsLog


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints after 6, 9 and 12 steps."""
    folder = tmp_path_factory.mktemp("finished")
    toy_run(folder, toy_settings())
    return folder


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be damaged."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_checkpoint_is_whole_and_holds_no_pickle(run_folder: Path) -> None:
    folder = run_folder / "checkpoints/step-00000012"
    header = verify(folder)
    assert header["task"] == "toy"
    assert header["step"] == 12
    assert set(header["files"]) == {"model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json"}
    with safe_open(folder / "trainer/optimizer.safetensors", framework="pt") as file:
        assert "lm_head.weight/exp_avg" in file.keys()  # noqa: SIM118 - safe_open is no mapping
    state = json.loads((folder / "trainer/state.json").read_text())
    assert (state["step"], state["samples"], state["targets"], state["pre_decay_step"]) == (12, 96, 960, 6)


def bit_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [bit_flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json"])
def test_damage_is_named_and_the_checkpoint_before_is_used_aloud(run_folder: Path, damage: Any, name: str) -> None:
    newest = run_folder / "checkpoints/step-00000012"
    damage(newest / name)
    with pytest.raises(RunFolderError) as caught:
        load_checkpoint(newest)
    assert name in str(caught.value)
    watching = Watching()
    fallen_back = latest_good(run_folder, watching.say)
    assert fallen_back is not None
    assert fallen_back.state.step == 9
    assert "step 12 is damaged" in watching.said[0]
    assert name in watching.said[0]


def test_going_on_from_an_older_checkpoint_gives_the_same_end(run_folder: Path, finished: Path) -> None:
    cut(run_folder / "checkpoints/step-00000012/model.safetensors")
    toy_run(run_folder, toy_settings(), resume=latest_good(run_folder, Watching().say))
    again, straight = (folder / "checkpoints/step-00000012" for folder in (run_folder, finished))
    assert weights(again) == weights(straight)


def test_when_every_checkpoint_is_damaged_it_is_an_error_and_without_any_there_is_none(run_folder: Path) -> None:
    for folder in checkpoints(run_folder).values():
        cut(folder / "model.safetensors")
    with pytest.raises(RunFolderError, match="every checkpoint of this run is damaged"):
        latest_good(run_folder, Watching().say)
    shutil.rmtree(run_folder / "checkpoints")
    assert latest_good(run_folder, Watching().say) is None
    with pytest.raises(RunFolderError, match="cannot be extended"):
        pre_decay(run_folder, Watching().say)


def test_a_folder_without_training_state_and_a_newer_state_are_refused(run_folder: Path) -> None:
    folder = run_folder / "checkpoints/step-00000012"
    header = read_header(folder)
    state = json.loads((folder / "trainer/state.json").read_text())
    (folder / "trainer/state.json").write_text(json.dumps({**state, "state_version": 2}))
    del header["files"]["trainer/state.json"]
    (folder / "rung.json").write_text(json.dumps(header))
    with pytest.raises(RunFolderError, match="no training state"):
        load_checkpoint(folder)
    header["files"]["trainer/state.json"] = _described(folder / "trainer/state.json")
    (folder / "rung.json").write_text(json.dumps(header))
    with pytest.raises(RunFolderError, match="version 2"):
        load_checkpoint(folder)


def _described(path: Path) -> dict[str, Any]:
    from rung.runfolder import file_sha256

    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 192 KiB: room for three checkpoints of the toy net and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_clear_error_and_earlier_checkpoints_stay_good(small_disk: Path) -> None:
    with pytest.raises(RunFolderError, match="the disk is full") as caught:
        toy_run(small_disk / "run", toy_settings(40, checkpoint_every=2, keep_last=30))
    assert "--resume" in str(caught.value)
    saved = checkpoints(small_disk / "run")
    assert len(saved) >= 2
    for folder in saved.values():
        load_checkpoint(folder)
    assert sorted(path.name for path in (small_disk / "run/checkpoints").iterdir()) == [p.name for p in saved.values()]


def test_a_disk_filled_by_the_log_is_a_clear_error(small_disk: Path) -> None:
    def fill() -> None:
        with MetricsLog(small_disk / "metrics.jsonl", from_step=0) as log:
            for step in range(10_000):
                log.append({"step": step, "loss": 1.0 / 3.0})

    with pytest.raises(RunFolderError, match="the disk is full"):
        fill()
    MetricsLog(small_disk / "metrics.jsonl", from_step=5).__exit__(None, None, None)
    assert [json.loads(line)["step"] for line in (small_disk / "metrics.jsonl").read_text().splitlines()] == [*range(6)]
