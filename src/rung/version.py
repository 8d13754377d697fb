"""The version of this package, stated once: the build, the run folders and `rung --version` all read it here."""

__version__ = "0.1.0"
