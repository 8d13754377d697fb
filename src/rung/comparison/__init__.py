"""The ladder: rungs fitted and measured on the same items, the verdict, the report."""
