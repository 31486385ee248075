"""The entry point: the console script `syncd`, and `python -m syncd`.

Importing the command line takes up to a second. Before that, this module opens the standard streams and lets `run` and
`once` receive their signals, so that a SIGTERM at any moment ends them in good order. It imports nothing else first.
"""

import os
import sys

from syncd.daemon.signals import Signals


def main() -> None:
    """Run the command line."""
    signals = Signals.of_command(sys.argv[1:2])
    # pydantic would search all installed packages for plugins, which takes a tenth of the time of a command
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    open_standard_streams()
    from syncd.cli import main as run_command  # noqa: PLC0415 - see the module's docstring

    run_command(signals)


def open_standard_streams() -> None:
    """Open file descriptors 0 to 2 on the null device if the caller has closed them.

    Otherwise the next file that is opened, such as the database, would become standard output.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


if __name__ == "__main__":
    main()
