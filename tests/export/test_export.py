"""An exported model says what the run says: to transformers, to Rung reading it back, and in its card."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rung.errors import EvaluationError, RunFolderError, RungError, TokenizerError, UsageError
from rung.export import verify
from rung.export.exporting import export_model, export_word_vectors
from rung.export.readers import RungReader
from rung.export.report import Comparison, ExportReport
from rung.nets.language_models import load_language_model
from rung.nets.lora import LoraConfig
from rung.nets.word_vectors import WordVectors
from rung.runfolder import write_folder, write_json
from rung.tasks.bases import base_record
from rung.tasks.tuning.folder import save_tuned
from rung.tasks.tuning.method import TuningMethod, apply_method

DECODERS = ("qwen3", "llama", "mistral", "qwen2", "gpt2")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def few_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real numbers are for real models; llama.cpp is asked in the slow tests."""
    monkeypatch.setattr(verify, "TOKENISED", 150)
    monkeypatch.setattr(verify, "SCORED", 14)
    real = verify.installed
    monkeypatch.setattr(verify, "installed", lambda package: package != "llama_cpp" and real(package))


def by_reader(report: ExportReport, reader: str) -> Comparison:
    (found,) = (comparison for comparison in report.comparisons if comparison.reader.startswith(reader))
    return found


@pytest.mark.parametrize("model_type", [*DECODERS, "bert"])
def test_transformers_reads_the_clean_folder_and_agrees(model_type: str, make_model: Any, tmp_path: Path) -> None:
    report = export_model(make_model(model_type), tmp_path / "out", to="hf")
    found = by_reader(report, "transformers")
    assert report.verified
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-4
    assert found.same_choice == 1.0
    assert found.same_tokens == found.tokenised or found.remark
    model = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} <= model | tokenizer


@pytest.mark.parametrize("model_type", DECODERS)
def test_transformers_reads_the_gguf_file_and_agrees(model_type: str, make_model: Any, tmp_path: Path) -> None:
    report = export_model(make_model(model_type), tmp_path / "out", to="gguf", dtype="f32")
    for reader in ("transformers", "Rung"):
        found = by_reader(report, reader)
        assert found.largest_difference is not None
        assert found.largest_difference < 1e-4
        assert found.same_tokens == found.tokenised
    assert by_reader(report, "llama.cpp").largest_difference is None


@pytest.mark.parametrize(("dtype", "most"), [("f16", 5e-3), ("bf16", 5e-2), ("q8_0", 8e-2)])
def test_reduced_precision_differs_by_rounding_alone(dtype: Any, most: float, make_model: Any, tmp_path: Path) -> None:
    report = export_model(make_model("qwen3"), tmp_path / "out", to="gguf", dtype=dtype)
    assert 0 < by_reader(report, "Rung").relative_difference < most
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    assert kinds == {"F32", dtype.upper()}


def test_an_encoder_goes_through_gguf_and_back(make_model: Any, tmp_path: Path) -> None:
    report = export_model(make_model("bert"), tmp_path / "out", to="gguf", dtype="f32")
    assert by_reader(report, "Rung").largest_difference == pytest.approx(0, abs=1e-5)
    assert not report.verified  # only Rung has read it
    assert any("accents" in note for note in report.notes)
    assert "Not verified" in (tmp_path / "out" / "README.md").read_text()


def test_rope_scaling_goes_through_gguf(make_model: Any, tmp_path: Path) -> None:
    for scaling in (
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
    ):  # fmt: skip
        folder = make_model("llama") if not (tmp_path / "tiny-llama").exists() else tmp_path / "tiny-llama"
        config = json.loads((folder / "config.json").read_text())
        config.pop("rope_parameters", None)
        theta = {"rope_theta": 500_000.0 if scaling["rope_type"] == "llama3" else 10_000.0}
        write_json(folder / "config.json", {**config, **theta, "rope_scaling": scaling})
        report = export_model(folder, tmp_path / str(scaling["rope_type"]), to="gguf", dtype="f32")
        assert by_reader(report, "Rung").largest_difference == pytest.approx(0, abs=1e-5)


def test_weights_in_shards_and_half_precision(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.export.hugging_face._SHARD_BYTES", 20_000)
    report = export_model(make_model("qwen3"), tmp_path / "out", to="hf", dtype="bf16")
    assert len([name for name in report.files if name.endswith(".safetensors")]) > 1
    assert "model.safetensors.index.json" in report.files
    assert "README.md" in report.files
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert by_reader(report, "transformers").relative_difference < 0.02


def test_the_chat_template_and_the_split_are_carried(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("llama")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**config, "chat_template": "{{ messages }}"})
    export_model(folder, tmp_path / "out", to="gguf", verify=False)
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_an_export_that_nobody_checked_says_so(make_model: Any, tmp_path: Path) -> None:
    report = export_model(make_model("qwen3"), tmp_path / "out", to="hf", verify=False)
    assert not report.verified
    assert "NOT VERIFIED" in "\n".join(report.lines())
    assert "**Not verified:**" in (tmp_path / "out" / "README.md").read_text()


def test_a_reader_that_fails_is_told_and_proves_nothing(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any, **_options: Any) -> None:
        raise ValueError("unknown architecture")

    monkeypatch.setattr(verify, "TransformersReader", fails)
    report = export_model(make_model("qwen3"), tmp_path / "out", to="hf")
    assert not report.verified
    assert "transformers: not compared (it does not open the export: ValueError: unknown" in "\n".join(report.lines())


def test_a_reader_that_fails_on_the_model_is_told(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(verify.TransformersReader, "scores", fails)
    report = export_model(make_model("qwen3"), tmp_path / "out", to="hf")
    assert not report.verified
    assert "it opens the export and fails on it: RuntimeError: no kernel" in "\n".join(report.lines())


@pytest.mark.parametrize("model_type", ["gpt2", "bert"])
def test_a_short_context_is_kept(model_type: str, make_model: Any, tmp_path: Path) -> None:
    """Texts to compare by are longer than this network's positions."""
    folder, short = make_model(model_type), 9
    config = json.loads((folder / "config.json").read_text())
    key = "n_positions" if model_type == "gpt2" else "max_position_embeddings"
    write_json(folder / "config.json", {**config, key: short})
    tensors = load_file(folder / "model.safetensors")
    cut = {
        name: t[:short].clone() if "position_embeddings" in name or ".wpe." in name else t
        for name, t in tensors.items()
    }
    save_file(cut, folder / "model.safetensors", metadata={"format": "pt"})
    assert export_model(folder, tmp_path / "out", to="hf").verified


def test_numbers_that_are_none_are_never_passed_over(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, asked = verify.TransformersReader.scores, []

    def once_nan(self: Any, ids: Any) -> Any:
        asked.append(ids)
        return honest(self, ids) * (np.nan if len(asked) == 3 else 1)

    monkeypatch.setattr(verify.TransformersReader, "scores", once_nan)
    with pytest.raises(EvaluationError, match="other scores"):
        export_model(make_model("qwen3"), tmp_path / "out", to="hf")


def test_a_tokenizer_that_brings_code_is_not_handed_on(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(
        folder / "tokenizer_config.json", {**config, "auto_map": {"AutoTokenizer": ["other/model--code.T", None]}}
    )
    with pytest.raises(RunFolderError, match="auto_map asks to run Python code"):
        export_model(folder, tmp_path / "out", to="hf", verify=False)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for to in ("hf", "gguf"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(RunFolderError, match="limit on disk space"):
                export_model(folder, tmp_path / to, to=to, verify=False)  # type: ignore[arg-type]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_wrong_export_is_refused_and_leaves_nothing(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = RungReader.scores

    def wrong(self: RungReader, ids: Any) -> Any:
        return honest(self, ids) + (np.arange(448) == 7) * (type(self) is not RungReader)

    monkeypatch.setattr(RungReader, "scores", wrong)
    with pytest.raises(EvaluationError, match="other scores"):
        export_model(make_model("qwen3"), tmp_path / "out", to="gguf", dtype="f32")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".writing-*"))


def test_the_card_is_made_from_records(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3")
    record = {"name": "bits_per_byte", "value": 1.25, "unit": "bits/byte", "n": 12, "signature": "greedy"}
    write_json(folder / "results.json", {"records": [record]})
    parent = {"name": "smollm2", "licence": "apache-2.0", "weights_sha256": "ab" * 32}
    made = tmp_path / "run"
    header = {"kind": "run", "state": "finished", "parent": parent}
    write_folder(made, lambda target: shutil.copytree(folder, target, dirs_exist_ok=True) and None, header)
    export_model(made, tmp_path / "out", to="hf", verify=False)
    card = (tmp_path / "out" / "README.md").read_text()
    head = card.split("---")[1]
    for line in (
        "license: apache-2.0",
        "base_model: HuggingFaceTB/SmolLM2-135M-Instruct",
        "pipeline_tag: text-generation",
    ):
        assert line in head
    assert "| bits_per_byte | 1.2500 bits/byte |" in card
    assert "ab" * 32 in card
    assert "Energy: not measured" in card


def test_the_card_names_the_new_folder_in_its_programs_alone(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3").rename(tmp_path / "run")
    body = (
        '# run\n\nTo run it: `rung eval run TEXT` in a run.\n\nrung generate run "run"\nload("run")\nrung.load("run")\n'
    )
    (folder / "README.md").write_text(body)
    export_model(folder, tmp_path / "out", to="hf", verify=False)
    told = (
        '# run\n\nTo run it: `rung eval out TEXT` in a run.\n\nrung generate out "run"\nload("run")\nrung.load("out")\n'
    )
    assert told in (tmp_path / "out" / "README.md").read_text()


def test_damaged_records_are_told(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3")
    (folder / "results.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"results\.json cannot be read"):
        export_model(folder, tmp_path / "out", to="hf", verify=False)


def test_an_adapter_is_merged_into_its_base(make_model: Any, tmp_path: Path) -> None:
    base, tuned = make_model("qwen3"), tmp_path / "tuned"
    net, method = load_language_model(base), TuningMethod("lora", lora=LoraConfig(r=2))
    apply_method(net, method, seed=1)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    tuned.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tuned / name)
    save_tuned(net, tuned, method=method, base=base_record(base), task_type="CAUSAL_LM")
    report = export_model(tuned, tmp_path / "out", to="hf")
    assert report.verified
    assert not {"adapter_config.json", "adapter_model.safetensors", "tuned.json"} & report.files.keys()
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        merged, adapted, plain = load_language_model(tmp_path / "out")(ids), net(ids), load_language_model(base)(ids)
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged, plain, atol=1e-2)


def test_a_weight_that_does_not_fit_is_refused(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for to in ("hf", "gguf"):
        with pytest.raises(RunFolderError, match=r"up_proj.*(not finite|too large)"):
            export_model(folder, tmp_path / to, to=to, dtype="f16", verify=False)  # type: ignore[arg-type]


def test_what_has_no_place_is_told(make_model: Any, tmp_path: Path) -> None:
    folder = make_model("qwen3")
    definition = json.loads((folder / "tokenizer.json").read_text())

    def refusal(expected: type[RungError], to: Any = "gguf", dtype: Any = None) -> str:
        with pytest.raises(expected) as caught:
            export_model(folder, tmp_path / "out", to=to, dtype=dtype, verify=False)
        return str(caught.value)

    definition["model"]["ignore_merges"] = True
    write_json(folder / "tokenizer.json", definition)
    assert "whole words past the merges" in refusal(TokenizerError)
    config = json.loads((folder / "config.json").read_text())
    assert "q8_0" in refusal(UsageError, "hf", "q8_0")
    write_json(folder / "config.json", {**config, "architectures": ["Qwen3ForSequenceClassification"]})
    assert "head of Qwen3ForSequenceClassification" in refusal(UsageError)
    write_json(folder / "config.json", {**config, "model_type": "rung-lm-lstm"})
    assert "network of Rung's own" in refusal(UsageError, "hf")
    assert "no place for a network of type rung-lm-lstm" in refusal(UsageError)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        export_model(folder, tmp_path / "full", to="hf")


def test_a_missing_gguf_package_is_told(make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(RunFolderError) as caught:
        export_model(make_model("qwen3"), tmp_path / "out", to="gguf")
    assert "pip install 'rung[gguf]'" in str(caught.value)


def test_word_vectors_become_a_word2vec_file(tmp_path: Path) -> None:
    vectors = WordVectors(["a", "b"], torch.randn(2, 3).numpy(), model_type="rung-word2vec", where="test")
    write_folder(tmp_path / "run", vectors.save, {"task": "word-vectors", "state": "finished"})
    report = export_word_vectors(tmp_path / "run", tmp_path / "out")
    assert (tmp_path / "out" / "vectors.txt").read_text().startswith("2 3\na ")
    assert by_reader(report, "Rung").largest_difference == pytest.approx(0, abs=1e-6)


def test_the_strings_are_the_same_every_time() -> None:
    assert verify.strings(200) == verify.strings(200)
    assert len(set(verify.strings(200))) > 190
