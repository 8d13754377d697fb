"""Targets of T5, BART and Marian: those of transformers, greedy and by beams, token by token; what settings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rung.errors import RunFolderError, UsageError
from rung.generation.beam_search import BeamOptions
from rung.generation.options import SamplingOptions
from rung.generation.sequence_to_sequence import SequenceToSequence
from rung.generation.target_rules import TargetRules
from rung.generation.target_settings import TargetSettings, read_target_settings
from rung.nets.encoder_decoder_folder import load_encoder_decoder

VOCABULARY, LONGEST = 120, 50
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 28,
    "max_position_embeddings": 64,
}
MARIAN: dict[str, Any] = {
    **BART,
    "pad_token_id": VOCABULARY - 1,
    "eos_token_id": 0,
    "decoder_start_token_id": VOCABULARY - 1,
    "scale_embedding": True,
    "activation_function": "swish",
}
"""As the published ones of OPUS-MT, whose targets begin with the padding token and never hold it."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "T5": ("t5", {}),
    "T5 1.1": ("t5-gated", {}),
    "T5 1.1 with rules": (
        "t5-gated",
        {"length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2, "min_length": 20},
    ),
    "BART": ("bart", {}),
    "BART as a summariser": (
        "bart",
        {
            "forced_bos_token_id": 0,
            "no_repeat_ngram_size": 3,
            "length_penalty": 2.0,
            "early_stopping": True,
            "min_length": 12,
        },
    ),
    "BART without some words": ("bart", {"bad_words_ids": [[1], [5], [17]], "renormalize_logits": True}),
    "Marian": ("marian", {"bad_words_ids": [[VOCABULARY - 1]], "forced_eos_token_id": 0}),
    "BART that need not end": ("bart", {"forced_eos_token_id": None, "length_penalty": 0.6}),
}


def network(name: str) -> transformers.PreTrainedModel:
    if name == "bart":
        net = transformers.BartForConditionalGeneration(transformers.BartConfig(**BART))
    elif name == "marian":
        net = transformers.MarianMTModel(transformers.MarianConfig(**MARIAN))
    else:
        gated = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"} if name == "t5-gated" else {}
        net = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, **gated))
    generator = torch.Generator().manual_seed(5)
    scale = {"t5": 1.0, "t5-gated": 0.15, "bart": 0.3, "marian": 0.3}[name]
    with torch.no_grad():
        for key, p in net.named_parameters():
            if not p.requires_grad:  # sinusoids
                continue
            is_gain = "norm" in key and key.endswith("weight")
            p.copy_(scale * torch.randn(p.shape, generator=generator) + is_gain)
    return net.eval()


def sources(count: int = 6) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 30, (count,), generator=generator).tolist()
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def folder_of(name: str, settings: dict[str, Any], folder: Path) -> transformers.PreTrainedModel:
    net = network(name)
    net.generation_config.update(num_beams=4, **settings)
    net.save_pretrained(folder)
    return net


def written_there(net: transformers.PreTrainedModel, rows: list[list[int]], beams: int, end: int) -> list[list[int]]:
    pad, longest = net.config.pad_token_id, max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    found = net.generate(
        input_ids=ids, attention_mask=mask, num_beams=beams, max_new_tokens=LONGEST, do_sample=False
    ).tolist()
    return [row[1 : row.index(end, 1) + 1] if end in row[1:] else row[1:] for row in found]


@pytest.mark.parametrize("case", CASES)
def test_targets_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    theirs = folder_of(*CASES[case], tmp_path)
    net = load_encoder_decoder(tmp_path)
    settings = read_target_settings(tmp_path, net.config)
    writer, rows, end = SequenceToSequence(net, rules=settings.rules), sources(), settings.rules.end
    greedy = writer.write(rows, SamplingOptions(temperature=0, max_tokens=LONGEST))
    assert [found.token_ids for found in greedy] == written_there(theirs, rows, 1, end)
    assert max(len(found.token_ids) for found in greedy) == LONGEST
    options = BeamOptions(4, settings.length_penalty, settings.early_stopping, LONGEST)
    searched = writer.search(rows, options)
    assert [found[0].token_ids for found in searched] == written_there(theirs, rows, 4, end)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_target_does_not_depend_on_its_company(name: str, tmp_path: Path) -> None:
    folder_of(name, {}, tmp_path)
    net, rows = load_encoder_decoder(tmp_path), sources()
    rules = read_target_settings(tmp_path, net.config).rules
    together = SequenceToSequence(net, rules=rules).search(rows, BeamOptions(3, max_tokens=20))
    alone = SequenceToSequence(net, rules=rules, batch_size=1).search(rows, BeamOptions(3, max_tokens=20))
    assert [[h.token_ids for h in found] for found in together] == [[h.token_ids for h in found] for found in alone]


def test_bfloat16_scores_are_close(tmp_path: Path) -> None:
    folder_of("t5-gated", {}, tmp_path)
    net, rows = load_encoder_decoder(tmp_path), sources()
    rules = TargetRules(0, 1, forced_end=False)
    exact, rounded = (
        SequenceToSequence(net, precision=precision, rules=rules).search(rows, BeamOptions(2, max_tokens=4))
        for precision in ("fp32", "bf16")
    )
    ours, theirs = (torch.tensor([found[0].score for found in some]) for some in (exact, rounded))
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_an_unforced_target_is_finished_by_its_end_token_alone(tmp_path: Path) -> None:
    folder_of("t5", {}, tmp_path)
    net = load_encoder_decoder(tmp_path)
    writer = SequenceToSequence(net, rules=TargetRules(0, 1, forced_end=False))
    greedy = writer.write(sources(), SamplingOptions(temperature=0, max_tokens=12))
    searched = writer.search(sources(), BeamOptions(3, max_tokens=12))
    for found in (*greedy, *(h for some in searched for h in some)):
        assert found.finished == (found.token_ids[-1] == 1)


def settings_of(stored: dict[str, Any] | None, folder: Path, **config: Any) -> TargetSettings:
    """What is read of these settings; None: there is no generation_config.json."""
    network("bart").save_pretrained(folder)
    if stored is None:
        (folder / "generation_config.json").unlink()
    else:
        (folder / "generation_config.json").write_text(json.dumps(stored), encoding="utf-8")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | config), encoding="utf-8")
    return read_target_settings(folder, load_encoder_decoder(folder).config)


def test_settings_of_old_folders_stand_in_the_config(tmp_path: Path) -> None:
    found = settings_of(None, tmp_path, num_beams=6, length_penalty=2.0, max_length=142, min_length=56)
    assert (found.num_beams, found.length_penalty, found.max_tokens, found.rules.min_tokens) == (6, 2.0, 141, 55)
    assert found.rules.forced_end  # `forced_eos_token_id` is BART's default


def test_settings_override_the_config(tmp_path: Path) -> None:
    stored = {
        "decoder_start_token_id": 7,
        "eos_token_id": [9],
        "bad_words_ids": [[1]],
        "max_new_tokens": 30,
        "temperature": 0.7,
        "early_stopping": "never",
        "do_sample": False,
        "suppress_tokens": None,
    }
    found = settings_of(stored, tmp_path)
    assert found.rules == TargetRules(7, 9, never=(1,), forced_end=False)
    assert (found.max_tokens, found.num_beams, found.early_stopping) == (30, 1, "never")
    assert found.stored == stored


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"do_sample": True}, "do_sample = True is not supported: targets are searched for with beams"),
        ({"repetition_penalty": 1.3}, "repetition_penalty = 1.3 is not supported"),
        ({"num_beam_groups": 2}, "num_beam_groups = 2 is not supported"),
        ({"no_repeat_ngram": 3}, "the setting no_repeat_ngram = 3 is not known"),
        ({"bad_words_ids": [[3, 4]]}, "bad_words_ids may hold single tokens only"),
        ({"bad_words_ids": [[120]]}, "bad_words_ids must be one of the 120 tokens"),
        ({"eos_token_id": [2, 3]}, "eos_token_id must be one of the 120 tokens"),
        ({"forced_bos_token_id": "<s>"}, "forced_bos_token_id must be one of"),
        ({"num_beams": 2.5}, "num_beams must be a whole number"),
        ({"min_length": "long"}, "min_length must be a whole number"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be a whole number of at least 0"),
        ({"length_penalty": 99}, "length_penalty must be from -10 to 10"),
        ({"max_length": "many"}, "max_length must be a whole number"),
        ({"length_penalty": "2"}, "length_penalty must be a number"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(stored: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=said):
        settings_of(stored, tmp_path)


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    network("bart").save_pretrained(tmp_path)
    config = load_encoder_decoder(tmp_path).config
    for content, said in (("[]", "not a JSON object"), ("{", "cannot read generation_config.json")):
        (tmp_path / "generation_config.json").write_text(content, encoding="utf-8")
        with pytest.raises(RunFolderError, match=said):
            read_target_settings(tmp_path, config)


def test_rules_forbid_what_they_say() -> None:
    rules = TargetRules(0, 1, never=(4,), min_tokens=2, no_repeat_ngram_size=2)
    scores = rules.apply(torch.zeros(2, 6), torch.tensor([[3], [2]]))
    assert scores.isinf().nonzero().tolist() == [[0, 1], [0, 4], [1, 1], [1, 4]]
    # After 0 3 5 3, a second 3 5 would repeat; the end may come.
    scores = rules.apply(torch.zeros(1, 6), torch.tensor([[3, 5, 3]]))
    assert scores.isinf().nonzero().tolist() == [[0, 4], [0, 5]]
    forced = TargetRules(0, 1, forced_first=2).apply(torch.zeros(1, 4), torch.empty(1, 0, dtype=torch.int64))
    assert forced.tolist() == [[-torch.inf, -torch.inf, 0.0, -torch.inf]]
    with pytest.raises(UsageError, match="min_tokens must be a whole number"):
        TargetRules(0, 1, min_tokens=-1)
