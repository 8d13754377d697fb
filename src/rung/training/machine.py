"""What this machine offers to training, found out without timing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import psutil
import torch

from rung.training.plan import Machine

_USABLE_MEMORY = 0.85  # of what is free: the rest is for the text's page cache and for what the estimate leaves out


def this_machine(*, threads: int | None, ranks: int = 1, ranks_here: int = 1) -> Machine:
    """The machine of this process, shared with the other ranks on it. A GPU is used when there is one."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return Machine(
            device="cuda",
            threads=threads or 1,
            memory=int(free * _USABLE_MEMORY),
            bf16=torch.cuda.is_bf16_supported(),
            can_compile=True,
            ranks=ranks,
        )
    return Machine(
        device="cpu",
        threads=threads or max(1, usable_cores() // ranks_here),
        memory=int(psutil.virtual_memory().available * _USABLE_MEMORY / ranks_here),
        bf16=has_bf16_instructions(),
        can_compile=compiler_problem() is None,
        ranks=ranks,
    )


def usable_cores() -> int:
    """Cores that this process may run on; of two hardware threads on one core, one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bfloat16 matrices itself (avx512_bf16 or AMX); elsewhere bfloat16 is slower."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def compiler_problem() -> str | None:
    """Why `torch.compile` cannot work on this CPU, or None: it needs a C++ compiler that finds Python's headers."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return "there is no C++ compiler (Debian, Ubuntu: apt install g++)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <Python.h>\n", encoding="utf-8")
        command = [compiler, "-fsyntax-only", f"-I{sysconfig.get_path('include')}", str(source)]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed arguments
    if done.returncode:
        return f"{compiler} does not find Python.h (Debian, Ubuntu: apt install python3-dev)"
    return None
