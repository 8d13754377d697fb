"""How long `rung --help` and `import rung` take: medians of alternating starts, beside what they avoid to import.

    python bench/startup.py

Every start is a fresh process. The last line is one JSON object with seconds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "python, nothing imported": ["-c", "pass"],
    "import rung": ["-c", "import rung"],
    "rung --help": ["-m", "rung", "--help"],
    "rung train --help": ["-m", "rung", "train", "--help"],
    "import rich.console": ["-c", "import rich.console"],
    "import pydantic": ["-c", "import pydantic; pydantic.BaseModel"],
    "import torch": ["-c", "import torch"],
}


def start(arguments: list[str]) -> float:
    """Seconds from nothing to the end of one fresh Python process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    for arguments in COMMANDS.values():  # once, so that everything is compiled and in the disk cache
        start(arguments)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(start(arguments))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    bare = medians["python, nothing imported"]
    for name, seconds in medians.items():
        print(f"{name:26} {seconds:6.3f} s   {seconds - bare:+.3f} s over bare Python")
    print(json.dumps({"rounds": ROUNDS, "seconds": {name: round(value, 4) for name, value in medians.items()}}))


if __name__ == "__main__":
    main()
