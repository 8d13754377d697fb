"""Rung: labelled data in, a verdict out; raw text in, a language model out; on the machine you have.

    import rung

    report = rung.compare(["tickets.csv"], target="label", out="runs/tickets")
    print(report.verdict.sentence)
    classifier = rung.load("runs/tickets/rungs/linear")
    print(classifier.classify("My invoice is wrong"))

    summary = rung.train(["my_texts/"], minutes=30)   # a folder that transformers opens too
    model = rung.load(summary.run)
    print(model.generate("Once upon a time"))

Importing `rung` is instant: torch and the rest are imported when a name that needs them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rung.errors import (
    DataError,
    EvaluationError,
    GenerationError,
    NewerFormatError,
    PlanError,
    RecipeError,
    RunFolderError,
    RungError,
    RungWarning,
    TokenizerError,
    TrainingError,
    UsageError,
)
from rung.version import __version__

if TYPE_CHECKING:
    from rung.comparison.command import compare
    from rung.comparison.language_models.command import compare_texts
    from rung.comparison.language_models.result import LanguageLadder
    from rung.comparison.pairs_command import compare_pairs
    from rung.comparison.prompting import prompt_curves
    from rung.comparison.result import Comparison
    from rung.export.exporting import export_model
    from rung.nets.word_vectors import WordVectors
    from rung.recipe import Recipe
    from rung.tasks.classification.classifier import Classifier
    from rung.tasks.classification.estimator import TextClassifier
    from rung.tasks.language_modelling import (
        EvaluationSummary,
        LanguageModel,
        TrainSummary,
        carry_on,
        evaluate,
        extend,
        plan,
        resume,
        train,
    )
    from rung.tasks.loading import load
    from rung.tasks.masked_language_modelling.model import MaskedModel
    from rung.tasks.prompting.curves import CurveWish
    from rung.tasks.rewriting.rewriter import Rewriter
    from rung.tasks.similarity.encoder import SentenceEncoder
    from rung.tasks.tagging.tagger import Tagger
    from rung.tasks.tuning.method import TuningMethod
    from rung.tasks.tuning.tune import tune

_HOMES = {
    "Classifier": "rung.tasks.classification.classifier",
    "Comparison": "rung.comparison.result",
    "CurveWish": "rung.tasks.prompting.curves",
    "EvaluationSummary": "rung.tasks.language_modelling",
    "LanguageLadder": "rung.comparison.language_models.result",
    "LanguageModel": "rung.tasks.language_modelling",
    "MaskedModel": "rung.tasks.masked_language_modelling.model",
    "Recipe": "rung.recipe",
    "Rewriter": "rung.tasks.rewriting.rewriter",
    "SentenceEncoder": "rung.tasks.similarity.encoder",
    "Tagger": "rung.tasks.tagging.tagger",
    "TextClassifier": "rung.tasks.classification.estimator",
    "TrainSummary": "rung.tasks.language_modelling",
    "TuningMethod": "rung.tasks.tuning.method",
    "WordVectors": "rung.nets.word_vectors",
    "carry_on": "rung.tasks.language_modelling",
    "compare": "rung.comparison.command",
    "compare_pairs": "rung.comparison.pairs_command",
    "compare_texts": "rung.comparison.language_models.command",
    "evaluate": "rung.tasks.language_modelling",
    "export_model": "rung.export.exporting",
    "extend": "rung.tasks.language_modelling",
    "load": "rung.tasks.loading",
    "plan": "rung.tasks.language_modelling",
    "prompt_curves": "rung.comparison.prompting",
    "resume": "rung.tasks.language_modelling",
    "train": "rung.tasks.language_modelling",
    "tune": "rung.tasks.tuning.tune",
}

__all__ = [
    "Classifier",
    "Comparison",
    "CurveWish",
    "DataError",
    "EvaluationError",
    "EvaluationSummary",
    "GenerationError",
    "LanguageLadder",
    "LanguageModel",
    "MaskedModel",
    "NewerFormatError",
    "PlanError",
    "Recipe",
    "RecipeError",
    "Rewriter",
    "RunFolderError",
    "RungError",
    "RungWarning",
    "SentenceEncoder",
    "Tagger",
    "TextClassifier",
    "TokenizerError",
    "TrainSummary",
    "TrainingError",
    "TuningMethod",
    "UsageError",
    "WordVectors",
    "__version__",
    "carry_on",
    "compare",
    "compare_pairs",
    "compare_texts",
    "evaluate",
    "export_model",
    "extend",
    "load",
    "plan",
    "prompt_curves",
    "resume",
    "train",
    "tune",
]


def __getattr__(name: str) -> object:
    """Import the module that `name` lives in, now that it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rung' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
