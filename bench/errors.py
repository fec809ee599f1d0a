"""The one exception of the benchmark."""


class BenchError(Exception):
    """The benchmark cannot go on: the text says what went wrong, where, and what to do."""
