"""``python -m syncd`` is the console script ``syncd``."""

from syncd.cli import main

if __name__ == "__main__":
    main()
