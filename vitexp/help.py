"""What `vitexp --help` prints: verbs, groups with their options, short names, flags, exit codes."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitexp.config.command import VERBS

EXAMPLES = (
    ("vitexp", "train the small ViT on the bundled digits"),
    ("vitexp model=vit_ti16 data=cifar100 epochs=5", "another model, other data"),
    ("vitexp -m lr=1e-3,3e-4 seed=0,1,2", "a sweep: six runs, one table"),
    ("vitexp evaluate run=last", "test the newest run again"),
    ("vitexp predict run=last image=cat.jpg", "label a picture"),
)

FLAGS = (
    ("-m, --multirun", "one job for each combination of comma-separated values; again: what is left of them"),
    ("-c, --cfg job", "print the configuration, with computed values, and stop"),
    ("-i, --info", "what Hydra found: defaults, search path, plugins"),
    ("-cd, --config-dir DIR", "a folder of your own options, laid out as conf/ is"),
    ("-sc install=bash", 'tab completion: eval "$(vitexp -sc install=bash)"'),
)

EXIT_CODES = (
    (0, "complete"),
    (1, "a bug in vitexp"),
    (2, "usage or configuration; nothing was written"),
    (3, "data absent or damaged"),
    (4, "checkpoint or resume"),
    (5, "diverged: a loss was not finite"),
    (6, "resources: memory, disk, permission"),
    (7, "a sweep with failed jobs"),
    (130, "interrupted: saved, `vitexp resume` continues"),
    (138, "SLURM's SIGUSR1: saved, `vitexp resume` continues"),
    (143, "terminated: saved, `vitexp resume` continues"),
)


def help_text(verb: str | None = None, config_dirs: Sequence[str] = ()) -> RenderableType:
    """The help page; of one verb, its line and how to see its keys."""
    if verb is not None:
        return Text.assemble(
            (f"vitexp {verb}", "bold"), f"  {VERBS[verb][1]}\n", f"Keys and values: vitexp {verb} --cfg job"
        )
    from vitexp.config.compose import options
    from vitexp.config.schema import ALIASES, GROUPS

    groups = [(f"{group}=", ", ".join(options(group, config_dirs))) for group in GROUPS]
    aliases = [(f"{short}=", key) for short, key in ALIASES.items()]
    aliases += [("epochs= seed= name=", "as they are; every other key: vitexp --cfg job")]
    return Group(
        Text("vitexp [verb] [group=option ...] [key=value ...] [flags]\n", style="bold"),
        _section("Verbs", [(name, line) for name, (_, line) in VERBS.items()]),
        _section("Groups", groups),
        _section("Short names", aliases),
        _section("Flags", FLAGS),
        _section("Examples", EXAMPLES),
        _section("Exit codes", [(str(code), meaning) for code, meaning in EXIT_CODES]),
    )


def _section(title: str, rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return Group(Text(title, style="bold"), table, Text(""))
