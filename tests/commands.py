"""A checked command, as the verbs receive it, and a script for another environment; not a test itself."""

from vitexp.config.command import Command
from vitexp.config.compose import canonical, compose

# Every option of every group as YAML; the count goes to the last line.
COMPOSE_EVERYTHING = """
from vitexp.config.compose import compose, options, to_yaml
from vitexp.config.schema import GROUPS
every = [(group, option) for group in GROUPS for option in options(group)]
for group, option in every:
    print(to_yaml(compose([f"{group}={option}"])))
print(len(every))
"""


def command(*words: str) -> Command:
    return Command(compose(words), [canonical(word) for word in words], words)
