"""``python -m cachepod``."""

from cachepod.cli.main import main

if __name__ == "__main__":
    main()
