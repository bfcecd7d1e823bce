"""``python -m llavachat`` is the command ``llavachat``."""

from llavachat.cli import main

if __name__ == "__main__":
    main()
