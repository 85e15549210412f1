"""`python -m tsprune.cli`."""

from tsprune.cli import main

main()
