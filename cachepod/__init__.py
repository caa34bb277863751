"""Start GPU containers fast: installed environments from content-addressed snapshots."""

__version__ = "0.1.0"
