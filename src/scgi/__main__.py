"""`python -m scgi` is the command `scgi`."""

from scgi.cli.main import main

if __name__ == "__main__":
    main()
