"""GGUF files in llama.cpp itself: the same tokens, the same scores, the same greedy text. Needs llama-cpp-python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.export.exporting import export_model
from rung.export.readers import LlamaDecoder
from rung.export.verify import TOKENISED
from rung.tasks.language_model import load

pytestmark = pytest.mark.slow
GREEDY = 64


@pytest.fixture(autouse=True)
def llama_cpp() -> Any:
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (it is compiled from source)")


def greedy(file: Path, prompt: list[int]) -> list[int]:
    """The likeliest next token, `GREEDY` times, by llama.cpp."""
    reader, ids = LlamaDecoder(file, 128), list(prompt)
    for _ in range(GREEDY):
        ids.append(int(reader.scores(ids)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("model_type", ["qwen3", "llama", "mistral", "qwen2", "gpt2", "llama-pieces"])
def test_a_model_with_its_own_tokenizer_writes_the_same_text(
    model_type: str, dtype: Any, make_model: Any, tmp_path: Path
) -> None:
    folder = make_model(model_type)
    if dtype == "f16":  # the run itself in float16, so that rounding is not what is compared
        export_model(folder, tmp_path / "half", to="hf", dtype="f16", verify=False)
        folder = tmp_path / "half"
    report = export_model(folder, tmp_path / "out", to="gguf", dtype=dtype)
    (found,) = (comparison for comparison in report.comparisons if comparison.reader.startswith("llama.cpp"))
    assert found.same_tokens == found.tokenised == TOKENISED
    exact = 1e-4 if model_type != "gpt2" else 1e-3  # llama.cpp looks GELU up in a table of half precision
    assert found.relative_difference < (exact if dtype == "f32" else 5e-3)
    model = load(folder)
    for prompt in ("the cat sat", "na\u00efve"):
        ids = model.tokenizer.encode(prompt)
        assert greedy(tmp_path / "out" / "model.gguf", ids) == rung_greedy(model, ids)


def rung_greedy(model: Any, prompt: list[int]) -> list[int]:
    """The likeliest next token, `GREEDY` times, by Rung's own network, the end of a text being a token like others."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(GREEDY):
            ids.append(int(model.net(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_an_encoder_gives_the_same_vectors(make_model: Any, tmp_path: Path) -> None:
    report = export_model(make_model("bert"), tmp_path / "out", to="gguf", dtype="f32")
    (found,) = (comparison for comparison in report.comparisons if comparison.reader.startswith("llama.cpp"))
    assert report.verified
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-3  # llama.cpp looks GELU up in a table of half precision
    assert found.same_tokens is not None
    assert found.same_tokens >= 0.97 * found.tokenised  # it takes accents off; Rung's own WordPiece keeps them
