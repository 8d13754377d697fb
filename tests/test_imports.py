"""Starting is instant: what is heavy is imported when it is needed, not before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import rung
from rung.version import __version__

HEAVY = (
    "torch",
    "numpy",
    "pydantic",
    "polars",
    "sklearn",
    "scipy",
    "transformers",
    "tokenizers",
    "safetensors",
    "rich",
)

LOADED_AFTER = """
import contextlib, io, json, sys
with contextlib.redirect_stdout(io.StringIO()):
    try:
        {start}
    except SystemExit as end:
        assert end.code == 0, end.code
print(json.dumps(sorted(set({heavy}) & set(sys.modules))))
"""


@pytest.mark.parametrize(
    "start",
    [
        "import rung",
        "import rung; dir(rung)",
        "sys.argv = ['rung', '--help']; from rung.cli.main import main; main()",
        "sys.argv = ['rung', '--version']; from rung.cli.main import main; main()",
    ],
)
def test_nothing_heavy_is_imported(start: str) -> None:
    program = LOADED_AFTER.format(start=start, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_every_name_of_the_python_api_is_there() -> None:
    missing = [name for name in rung.__all__ if getattr(rung, name, None) is None]
    assert missing == []
    assert dir(rung) == rung.__all__
    assert rung.__version__ == __version__


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        rung.tarin  # noqa: B018
