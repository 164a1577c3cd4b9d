"""Commands whose output somebody stops reading, as in `tool | head`. Imports nothing that might be missing."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BROKEN_PIPE = 141
"""Exit code then, as after SIGPIPE; the signal itself would end a run over any socket that closes."""


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End the process without a word where nobody reads its output any more; as a context or a decorator.

    Output is flushed here: what Python flushes at its end would complain where nobody can catch it.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(BROKEN_PIPE) from None
