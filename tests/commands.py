"""A checked command, as the verbs receive it; not a test itself."""

from vitexp.config.command import Command
from vitexp.config.compose import canonical, compose


def command(*words: str) -> Command:
    return Command(compose(words), [canonical(word) for word in words], words)
