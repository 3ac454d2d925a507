"""``python -m causeway`` is the command ``causeway``."""

from app.cli import main

if __name__ == "__main__":
    main()
