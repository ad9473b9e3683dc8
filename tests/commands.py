"""A checked command, as the verbs receive it; not a test itself."""

from vitexp.command import Command
from vitexp.config import canonical, compose


def command(*words: str) -> Command:
    return Command(compose(words), [canonical(word) for word in words], words)
