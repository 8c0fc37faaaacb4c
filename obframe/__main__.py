"""``python -m obframe``: the same as ``obframe``."""

from obframe.cli import main

if __name__ == "__main__":
    main()
