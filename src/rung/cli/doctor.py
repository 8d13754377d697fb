"""`rung doctor`: what this machine offers for training, what is missing, and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from rung.cli.options import Json, examples
from rung.version import __version__

_EXAMPLES = examples("rung doctor", "rung doctor --json            # to attach to a report of a problem")
_LITTLE_MEMORY = 2 * 2**30
_LITTLE_DISK = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One fact about the machine. `fix` says what to do when it is a problem, and is empty when all is well."""

    name: str
    value: str
    fix: str = ""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("doctor", epilog=_EXAMPLES, short_help="Look at this machine: what it offers, what is missing.")(doctor)


def doctor(as_json: Json = False) -> None:
    """Look at this machine: cores, memory, precision, compiler, disk, cache; name what is missing and how to fix it.

    What is missing makes training slower or smaller; it never makes `rung` fail without a word. The exit code is 0.
    """
    from rung.cli.console import print_json, results

    findings = [*_software(), *_processor(), *_precision(), *_compiler(), *_memory(), *_disk()]
    problems = [finding for finding in findings if finding.fix]
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "problems": len(problems)})
        return
    from rich.table import Table

    console, table = results(), Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row("[yellow]![/]" if finding.fix else "[green]✓[/]", finding.name, finding.value)
    console.print(table)
    for finding in problems:
        console.print(f"\n[yellow]{finding.name}[/]: {finding.fix}")
    if not problems:
        console.print("\nNothing is missing.")


def _software() -> list[Finding]:
    from importlib.metadata import version

    return [
        Finding(
            "rung", f"{__version__} with Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        ),
        Finding("torch", version("torch")),
    ]


def _processor() -> list[Finding]:
    import torch

    from rung.training.machine import usable_cores

    found = [Finding("processor", f"{_processor_name()}, {usable_cores()} cores usable here")]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found.append(Finding(f"GPU {number}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        found.append(
            Finding("GPU", "there is one, but this torch cannot use it", "install torch for your CUDA version")
        )
    return found


def _processor_name() -> str:
    """What Linux calls the processor; elsewhere what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _precision() -> list[Finding]:
    """Measured as the plan does it, not looked up: some processors announce bfloat16 and are slow at it."""
    import torch

    from rung.training.machine import this_machine
    from rung.training.precision import bf16_is_faster

    machine = this_machine(threads=None)
    torch.set_num_threads(machine.threads)
    if not machine.bf16:
        return [Finding("precision", "float32: no bfloat16 instructions here")]
    faster = bf16_is_faster(torch.device(machine.device))
    return [Finding("precision", "bfloat16, measured faster than float32" if faster else "float32, measured faster")]


def _compiler() -> list[Finding]:
    """torch.compile turns a network into C++ here."""
    from rung.training.machine import compiler_problem

    problem = compiler_problem()
    if problem is None:
        return [Finding("C++ compiler", "works with torch.compile")]
    return [Finding("C++ compiler", "none that torch.compile can use", f"training works, slower: {problem}")]


def _memory() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    value = f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    return [Finding("memory", value, "close something, or plan small" if memory.available < _LITTLE_MEMORY else "")]


def _disk() -> list[Finding]:
    from rung.data.cache import cache_folder, cache_use

    cache = cache_folder()
    free = shutil.disk_usage(Path.cwd()).free
    fix = "free some space: a run needs about 16 bytes for each parameter of its network, times five checkpoints"
    used = cache_use(cache).prepared_bytes
    writable = os.access(next(path for path in (cache, *cache.parents) if path.exists()), os.W_OK)
    return [
        Finding("disk", f"{free / 2**30:.0f} GiB free here", fix if free < _LITTLE_DISK else ""),
        Finding(
            "cache",
            f"{cache}: {used / 1e6:,.1f} MB of prepared text (`rung data cache --clear` removes it)",
            "" if writable else "it cannot be written to: set RUNG_CACHE to a folder of your own",
        ),
    ]
