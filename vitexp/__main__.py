"""`python -m vitexp`."""

from vitexp.cli import entry

entry()
