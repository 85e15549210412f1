"""`python -m tsprune.cli`."""

from tsprune.cli import main

if __name__ == "__main__":
    main()
