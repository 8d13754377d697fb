"""`python -m rung` is `rung`; this is also how `torchrun -m rung train ...` starts every rank."""

from __future__ import annotations

from rung.cli.main import main

if __name__ == "__main__":
    main()
