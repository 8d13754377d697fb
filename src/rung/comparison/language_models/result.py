"""What a comparison of language models found: the content of its `report.json`, with a version and a JSON schema."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rung.records import Record

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CurvePoint(_Part):
    """Bits per byte of the validation text when a model had been trained for so long on so much text.

    `text_bytes` counts a text as often as it was read.
    """

    seconds: float
    text_bytes: float
    bits_per_byte: float


class Fit(_Part):
    """One trained model: `curve` ends with its last validation, `bits_per_byte` is measured on the test text."""

    seed: int
    folder: str
    bits_per_byte: Record
    valid_bits_per_byte: float
    curve: list[CurvePoint]


class Sample(_Part):
    """What a model writes on from a prompt."""

    prompt: str
    text: str


class LanguageRungResult(_Part):
    """One rung, measured. `metrics` are of the fit that is best on validation."""

    name: str
    description: str
    height: int
    finished: bool
    note: str = ""
    folder: str = ""
    shape: dict[str, Any] = Field(default_factory=dict, description="the settings of its network, from its recipe")
    fits: list[Fit] = []
    metrics: list[Record] = []
    samples: list[Sample] = []

    def metric(self, name: str) -> Record:
        """The record called `name`. Raises KeyError."""
        return {record.name: record for record in self.metrics}[name]


class LanguagePair(_Part):
    """A rung against the reference on the same test text; the difference is rung minus reference: above 0 is worse."""

    rung: str
    reference: str
    difference: Record
    non_inferior: bool = Field(description="worse by less than the margin, with 95 % confidence")
    inferior: bool = Field(description="worse by more than the margin, with 95 % confidence")


class LanguageVerdict(_Part):
    """Which rung is enough: the lowest that is not worse than the best by more than the margin."""

    sentence: str
    reasons: list[str]
    enough: str
    reference: str = Field(description="the best on validation text")
    margin: float


class LanguageLadder(_Part):
    """A finished comparison of language models."""

    schema_version: int = SCHEMA_VERSION
    rung_version: str
    task: str = "language-model"
    command: str
    created: str
    seconds: float
    machine: str
    settings: dict[str, Any]
    text: dict[str, Any] = Field(description="files, sha256, {part: documents and bytes}, bytes measured on")
    rungs: list[LanguageRungResult]
    floors: list[Record] = Field(description="gzip, bz2 and xz on the same test text")
    pairs: list[LanguagePair]
    crossings: list[str] = Field(description="sentences on which rung overtakes which, and after what time")
    verdict: LanguageVerdict

    @property
    def finished(self) -> list[LanguageRungResult]:
        """The rungs that could be trained, from the lowest up."""
        return [rung for rung in self.rungs if rung.finished]

    def result(self, name: str) -> LanguageRungResult:
        """The rung called `name`. Raises KeyError."""
        return {rung.name: rung for rung in self.rungs}[name]


def json_schema() -> dict[str, Any]:
    """The JSON schema of `report.json`."""
    return LanguageLadder.model_json_schema() | {"$id": f"rung/language-ladder/{SCHEMA_VERSION}"}
