"""GGUF files: tiny ones that the gguf package writes, read by transformers and by us; damaged and hostile ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import RunFolderError
from rung.nets.gguf_config import config_from_gguf, llama3_factors
from rung.nets.gguf_file import GgufFile
from rung.nets.gguf_layout import interleave_heads, separate_heads
from rung.nets.gguf_weights import GgufWeights
from rung.nets.language_models import load_language_model
from rung.nets.rope import RopeScaling
from rung.runfolder import write_json

HIDDEN, INNER, HEADS, KEYS, DIM, VOCABULARY = 256, 256, 4, 2, 64, 40
Change = Callable[[gguf.GGUFWriter], None]


def write_llama(path: Path, kind: str, *, change: Change | None = None, architecture: str = "llama") -> None:
    """A random llama or qwen2 of one layer, its matrices of the ggml type `kind`, by the gguf package alone."""
    draw = np.random.default_rng(0)
    quantisation = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(DIM)
    writer.add_vocab_size(VOCABULARY)
    if change:
        change(writer)
    shapes = {
        "token_embd.weight": (VOCABULARY, HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (HEADS * DIM, HIDDEN),
        "blk.0.attn_k.weight": (KEYS * DIM, HIDDEN),
        "blk.0.attn_v.weight": (KEYS * DIM, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HEADS * DIM),
        "blk.0.ffn_gate.weight": (INNER, HIDDEN),
        "blk.0.ffn_up.weight": (INNER, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, INNER),
    }
    if architecture == "qwen2":
        shapes |= {f"blk.0.attn_{part}.bias": shapes[f"blk.0.attn_{part}.weight"][:1] for part in "qkv"}
    for name, shape in shapes.items():
        values = draw.normal(0, 0.1, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            data = (
                random_blocks(draw, shape, quantisation) if kind.endswith("_K") else gguf.quantize(values, quantisation)
            )
            writer.add_tensor(name, data, raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(draw: np.random.Generator, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """Blocks of a K-quant, which the package reads and does not write: random bits with small scales."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = draw.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
    scales = {"Q6_K": (208,), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82)}[kind.name]
    for at in scales:
        data[:, :, at : at + 2] = np.array([2e-4], np.float16).view(np.uint8)
    return data.reshape(shape[0], -1)


KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_the_package_makes_of_it(kind: str, tmp_path: Path) -> None:
    write_llama(tmp_path / "model.gguf", kind)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    with GgufFile(tmp_path / "model.gguf") as file:
        assert file.tensors.keys() == theirs.keys()
        for name, tensor in theirs.items():
            expected = gguf.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(file.values(name).astype(np.float32), expected.reshape(tensor.shape[::-1]))


@pytest.mark.parametrize(
    ("architecture", "kind"), [("llama", "F32"), ("llama", "Q4_1"), ("llama", "Q4_K"), ("qwen2", "F16")]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scores_are_those_of_transformers_on_the_same_file(architecture: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_llama(file, kind, architecture=architecture)
    with GgufFile(file) as opened:
        write_json(tmp_path / "config.json", config_from_gguf(opened))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype=torch.float32
    ).eval()
    ours = load_language_model(tmp_path).eval()
    ids = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_dtypes_are_told_before_reading(tmp_path: Path) -> None:
    for kind, dtype in (("F16", torch.float16), ("BF16", torch.bfloat16), ("Q8_0", torch.float32)):
        write_llama(tmp_path / "model.gguf", kind)
        with GgufWeights(tmp_path / "model.gguf") as weights:
            name = "model.layers.0.self_attn.k_proj.weight"
            assert weights.dtype(name) == dtype
            assert weights.shape(name) == (KEYS * DIM, HIDDEN)
            assert weights.read(name, torch.bfloat16).dtype == torch.bfloat16
            assert "lm_head.weight" not in weights.names()  # no output.weight: tied


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_heads_are_interleaved_and_separated_again(heads: int, half: int, columns: int) -> None:
    weight = torch.arange(heads * 2 * half * columns, dtype=torch.float32).reshape(-1, columns)
    stored = interleave_heads(weight, heads)
    assert torch.equal(separate_heads(stored, heads), weight)
    assert torch.equal(stored[:2, 0], weight[[0, half], 0])  # a pair of the first head stands side by side


def test_llama3_scaling_is_found_from_its_tensor(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    config = transformers.LlamaConfig(
        head_dim=DIM, hidden_size=HIDDEN, num_attention_heads=HEADS, max_position_embeddings=131_072,
        rope_parameters={**scaling, "rope_theta": 500_000.0},
    )  # fmt: skip
    slowed = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].double().numpy()
    plain = 500_000.0 ** (-np.arange(0, DIM, 2) / DIM)
    factors = llama3_factors(RopeScaling(**scaling), 500_000.0, DIM)  # type: ignore[arg-type]
    np.testing.assert_allclose(plain / factors, slowed, rtol=1e-5)

    def change(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0]["llama.rope.freq_base"].value = 500_000.0
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))

    write_llama(tmp_path / "model.gguf", "F16", change=change)
    with GgufFile(tmp_path / "model.gguf") as file:
        assert config_from_gguf(file)["rope_scaling"] == scaling


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({}, None),
        ({"rope.scaling.factor": 1.0}, None),
        ({"rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
    ],
)
def test_a_factor_without_a_type_is_linear_as_in_llama_cpp(
    keys: dict[str, Any], scaling: dict[str, Any] | None, tmp_path: Path
) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        for key, value in keys.items():
            kind = gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.FLOAT32
            writer.add_key_value(f"llama.{key}", value, kind)

    write_llama(tmp_path / "model.gguf", "F16", change=change)
    with GgufFile(tmp_path / "model.gguf") as file:
        assert config_from_gguf(file).get("rope_scaling") == scaling


def damage(**values: Any) -> Change:
    """A change that gives metadata keys of llama other values; None takes a key out."""

    def change(writer: gguf.GGUFWriter) -> None:
        for key, value in values.items():
            name = key.replace("__", ".")
            if value is None:
                del writer.kv_data[0][name]
            else:
                writer.kv_data[0][name].value = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (damage(general__architecture="mamba"), "model_type 'mamba' is not supported"),
        (damage(llama__block_count=None), "lacks llama.block_count"),
        (damage(llama__rope__dimension_count=32), "differs from the size of a head"),
        (lambda writer: writer.add_sliding_window(8), "attention.sliding_window = 8, which is not supported"),
        (lambda writer: writer.add_expert_count(8), "expert_count = 8, which is not supported"),
        (lambda writer: writer.add_logit_scale(0.5), "logit_scale = 0.5, which is not supported"),
        (lambda writer: writer.add_rope_scaling_yarn_beta_fast(8.0), "yarn_beta_fast = 8.0, which is not supported"),
        (lambda writer: writer.add_causal_attention(False), "attention.causal = False, which is not supported"),
        (
            lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
            "type 'longrope' is not supported",
        ),
        (lambda writer: writer.add_tensor("rope_freqs.weight", np.full(DIM // 2, 3.0, np.float32)), "not what Llama 3"),
    ],
)
def test_what_the_metadata_says_and_we_cannot_do_is_refused(change: Change, problem: str, tmp_path: Path) -> None:
    write_llama(tmp_path / "model.gguf", "F16", change=change)
    with pytest.raises(RunFolderError, match=problem), GgufFile(tmp_path / "model.gguf") as file:
        config_from_gguf(file)


def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    write_llama(
        tmp_path / "model.gguf", "F16", change=lambda w: w.add_tensor("blk.0.magic.weight", np.ones(3, np.float32))
    )
    with pytest.raises(RunFolderError, match=r"no place for: 'blk\.0\.magic\.weight'"):
        GgufWeights(tmp_path / "model.gguf")


def test_rows_that_heads_cannot_share_are_refused(tmp_path: Path) -> None:
    write_llama(tmp_path / "model.gguf", "F16", change=damage(llama__attention__head_count=5))
    with GgufWeights(tmp_path / "model.gguf") as weights, pytest.raises(RunFolderError, match="5 heads cannot share"):
        weights.read("model.layers.0.self_attn.q_proj.weight", torch.float32)


def header(*, version: int = 3, tensors: int = 0, fields: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + rest


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def field(key: bytes, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def entry(name: bytes, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


PADDING = bytes(200)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot read"),
        (b"PK\x03\x04" + PADDING, "no GGUF file"),
        (header(version=1) + PADDING, "GGUF version 1"),
        (b"GGUF" + struct.pack(">I", 3) + PADDING, "big-endian"),
        (b"GGUF\x03\x00", "promises more than it holds"),
        (header(tensors=2**60), "promises more than it holds"),
        (header(fields=2**63), "promises more than it holds"),
        (header(fields=1, rest=struct.pack("<Q", 2**40)) + PADDING, "a string of 1,099,511,627,776 bytes"),
        (header(fields=1, rest=field(b"a", 9, struct.pack("<IQ", 4, 2**62))) + PADDING, "an array of"),
        (header(fields=1, rest=field(b"a", 9, struct.pack("<IQ", 8, 2**50))) + PADDING, "an array of"),
        (header(fields=1, rest=field(b"a", 9, struct.pack("<IQ", 9, 2)) + PADDING), "unknown type 9"),
        (header(fields=1, rest=field(b"a", 77, b"") + PADDING), "unknown type 77"),
        (header(fields=1, rest=field(b"\xff\xfe", 4, b"1234") + PADDING), "not UTF-8"),
        (header(fields=2, rest=field(b"a", 4, b"1234") * 2 + PADDING), "twice"),
        (header(tensors=1, rest=entry(b"t", (2**40, 2**20), 0) + PADDING), "no room for tensor 't'"),
        (header(tensors=1, rest=entry(b"t", (2**63, 2**63, 4), 0) + PADDING), "no room for tensor 't'"),
        (header(tensors=1, rest=entry(b"t", (1,) * 5, 0) + PADDING), "5 dimensions"),
        (header(tensors=1, rest=entry(b"t", (0, 3), 0) + PADDING), r"of shape \[3, 0\]"),
        (header(tensors=1, rest=entry(b"t", (4,), 0, 7) + PADDING), "no room"),
        (header(tensors=1, rest=entry(b"t", (32,), 999) + PADDING), "does not know: 999"),
        (header(tensors=1, rest=entry(b"t", (31,), 8) + PADDING), "no multiple of 32"),
        (header(tensors=2, rest=entry(b"t", (4,), 0) * 2 + PADDING), "twice"),
        (header(fields=1, rest=field(b"general.alignment", 4, struct.pack("<I", 24)) + PADDING), "no power of two"),
    ],
)
def test_damaged_and_hostile_files_are_told_apart_without_being_believed(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=problem) as caught:
        GgufFile(path)
    assert str(path) in str(caught.value)


@given(data=st.data())
def test_a_file_cut_or_flipped_anywhere_is_read_or_refused(
    data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, 1500), max_size=3)):
        if at < len(content):
            content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(content)
    with suppress(RunFolderError), GgufWeights(path) as weights:  # any other error is a defect
        assert all(weights.shape(name) for name in weights.names())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_llama(path, "Q4_0")
    return path.read_bytes()
