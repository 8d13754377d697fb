"""Beam search against transformers' `generate(num_beams=4)` with the same weights, in alternating runs.

    python bench/beam_search.py [--net FOLDER --sources FILE] [--sentences 1000] [--threads 1]

Without a network, one with random weights is written that never ends a target by itself, so that both write the same
number of tokens for every source: the ratio of the two is that of their steps. With a trained network (a folder of
`rung train --task translate`) and a file of source lines, targets end where they end. Prints the ratio of medians; the
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from rung.generation.sequence_to_sequence import BeamOptions, SequenceToSequence
from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rung.nets.encoder_decoder_folder import load_encoder_decoder, save_encoder_decoder

BATCH, ROUNDS = 64, 3
OPTIONS = BeamOptions(num_beams=4, length_penalty=1.0, max_tokens=17)


def random_network(folder: Path) -> None:
    """A Transformer of 256 dimensions and 8,000 tokens, whose end token is as good as impossible."""
    config = EncoderDecoderConfig(8000, 256, 3, 3, 4, 4, 1024, 1024, 128, 0, 1, 0)
    bias = torch.zeros(config.vocab_size)
    bias[config.eos_token_id] = -100.0
    save_encoder_decoder(EncoderDecoder(config, generator=torch.Generator().manual_seed(0), logits_bias=bias), folder)


def random_sources(count: int) -> list[list[int]]:
    """Sources as long as Multi30k's sentences: 14 tokens on average."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randn(count, generator=generator) * 4 + 14).round().clamp(4, 40).int().tolist()
    return [[*torch.randint(2, 8000, (length - 1,), generator=generator).tolist(), 1] for length in lengths]


def read_sources(net: Path, file: Path, count: int) -> list[list[int]]:
    """The first `count` lines of `file` as the network's tokens."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(net / "tokenizer.json"))
    end = json.loads((net / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    lines = file.read_text(encoding="utf-8").splitlines()[:count]
    return [
        [token for token in tokenizer.encode(line, add_special_tokens=False) if token != end] + [end] for line in lines
    ]


def theirs(net: transformers.MarianMTModel, sources: list[list[int]]) -> list[list[int]]:
    """The best target of each source: batches in order of length, as Rung makes them."""
    pad = net.config.pad_token_id
    order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
    written: dict[int, list[int]] = {}
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        longest = max(len(sources[number]) for number in batch)
        ids = torch.tensor([sources[number] + [pad] * (longest - len(sources[number])) for number in batch])
        out = net.generate(
            input_ids=ids,
            attention_mask=(ids != pad).long(),
            num_beams=OPTIONS.num_beams,
            length_penalty=OPTIONS.length_penalty,
            early_stopping=OPTIONS.early_stopping,
            max_length=OPTIONS.max_tokens + 1,
        )
        end = net.config.eos_token_id
        for number, tokens in zip(batch, out.tolist(), strict=True):
            written[number] = tokens[1 : tokens.index(end) + 1]
    return [written[number] for number in range(len(sources))]


def timed(run: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    """Seconds, and what was written."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", type=Path)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.net or Path(name)
        if arguments.net is None:
            random_network(folder)
            sources = random_sources(arguments.sentences)
        else:
            sources = read_sources(folder, arguments.sources, arguments.sentences)
        net = load_encoder_decoder(folder)
        oracle = transformers.MarianMTModel.from_pretrained(folder).eval()
    writers = {
        precision: SequenceToSequence(net, precision=precision, batch_size=BATCH) for precision in ("fp32", "bf16")
    }

    def ours(precision: str) -> list[list[int]]:
        return [found[0].token_ids for found in writers[precision].search(sources, OPTIONS)]

    seconds: dict[str, list[float]] = {"transformers": [], "fp32": [], "bf16": []}
    results: dict[str, list[list[int]]] = {}
    for _ in range(ROUNDS):
        for kind, run in (
            ("transformers", lambda: theirs(oracle, sources)),
            ("fp32", lambda: ours("fp32")),
            ("bf16", lambda: ours("bf16")),
        ):
            taken, results[kind] = timed(run)
            seconds[kind].append(taken)
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    equal = sum(a == b for a, b in zip(results["fp32"], results["transformers"], strict=True))
    tokens = sum(map(len, results["fp32"]))
    for kind, median in medians.items():
        ratio = medians["transformers"] / median
        print(f"{kind:>12}: {median:6.2f} s, {len(sources) / median:6.1f} sentences/s, {ratio:.2f}x")
    print(f"equal targets (fp32): {equal} of {len(sources)}; {tokens / len(sources):.1f} tokens each")
    print(
        json.dumps(
            {
                "seconds": {kind: round(median, 3) for kind, median in medians.items()},
                "ratio_fp32": round(medians["transformers"] / medians["fp32"], 2),
                "ratio_bf16": round(medians["transformers"] / medians["bf16"], 2),
                "equal_targets": equal,
                "sentences": len(sources),
                "tokens_per_sentence": round(tokens / len(sources), 2),
                "threads": arguments.threads,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
