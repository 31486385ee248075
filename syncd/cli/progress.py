"""Progress for long work: on a terminal only, on standard error, and gone when the work is done."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tqdm import tqdm

WITH_TOTAL = "{desc}: {percentage:3.0f}% |{bar:30}| {n:,} of {total:,}, {elapsed}"
WITHOUT_TOTAL = "{desc}: {n:,}, {elapsed}"


@contextmanager
def page_progress() -> Iterator[Callable[[Mapping[str, int]], None] | None]:
    """Show how many sessions a pass has read; Albert does not say how many there are."""
    with bar("sessions", total=None) as advance:
        if advance is None:
            yield None
        else:
            yield lambda counts: advance(counts["seen"])


@contextmanager
def bar(what: str, *, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """Show a bar, and give a function that takes how much is done; None if standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    size = get_terminal_size()  # a terminal may have none, and this has a default
    shape = WITH_TOTAL if total is not None else WITHOUT_TOTAL
    with ExitStack() as stack:
        shown = stack.enter_context(
            tqdm(
                total=total,
                desc=what,
                file=sys.stderr,
                leave=False,
                bar_format=shape,
                ncols=size.columns - 1,
                nrows=size.lines,
            )
        )
        err, out = _AboveBar(sys.stderr, shown), _AboveBar(sys.stdout, shown)
        stack.callback(err.end)
        stack.enter_context(redirect_stderr(err))
        if sys.stdout.isatty():  # output to a file is written directly
            stack.callback(out.end)
            stack.enter_context(redirect_stdout(out))

        def advance(done: int) -> None:
            shown.update(done - shown.n)

        yield advance


class _AboveBar:
    """A terminal on which lines are written above a bar, each as soon as it is whole."""

    def __init__(self, terminal: TextIO, shown: tqdm[Any]) -> None:
        self._terminal, self._shown = terminal, shown
        self._begun = ""

    def write(self, text: str) -> int:
        whole, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            with self._shown.external_write_mode(file=self._shown.fp):
                self._terminal.write(whole + end)
        return len(text)

    def flush(self) -> None:
        self._terminal.flush()

    def end(self) -> None:
        """Write what is left of a line that has no end."""
        self._terminal.write(self._begun)

    def __getattr__(self, name: str) -> object:
        return getattr(self._terminal, name)
