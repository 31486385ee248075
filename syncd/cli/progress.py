"""Progress for long work: on a terminal only, on standard error, and gone when the work is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def page_progress() -> Iterator[Callable[[Mapping[str, int]], None] | None]:
    """Show the sessions of a pass as they come; there is no total to tell: the server gives none."""
    with bar("sessions", total=None) as advance:
        if advance is None:
            yield None
        else:
            yield lambda counts: advance(counts["seen"])


@contextmanager
def bar(what: str, *, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """Show a bar; the function that it gives takes how much is done. None where there is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if total is not None else TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    # What is printed meanwhile must come out above the bar, on a terminal; what goes to a file must go to the file.
    both = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=both) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
