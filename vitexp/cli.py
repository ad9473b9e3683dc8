"""`vitexp [verb] [group=option] [key=value] [-m]`: parse, check, dispatch, and turn errors into exit codes.

Torch is imported only once a checked command starts to work; help, listings and every mistake answer before that.
"""

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from vitexp import __version__
from vitexp.config.command import VERBS, Command, call, implied
from vitexp.config.extensions import place_outside
from vitexp.errors import EXIT_CODES, ConfigError, Interrupted, VitexpError, behind, ending, printable
from vitexp.machine.rank import follow_first, is_first, started
from vitexp.machine.signals import install

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    install()
    try:
        follow_first()
        return dispatch(arguments)
    except (Exception, Interrupted) as error:  # noqa: BLE001  (the last resort: what _answer does not know is a bug)
        return _answer(error, arguments)


def _answer(error: BaseException, arguments: list[str]) -> int:
    """Say what ended the command; its exit code."""
    if (stopped := behind(error)) is not None:
        if is_first():  # each process of a run gets the signal
            _say(f"{stopped}{_how_to_go_on(arguments, stopped)}", style="yellow")
    elif isinstance(error, VitexpError):
        _say(str(error), style="bold red")
        if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            traceback.print_exc()
    elif isinstance(error, BrokenPipeError):  # whoever reads the output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    else:
        traceback.print_exc()
        what, where = type(error).__name__, place_outside(error)
        bug = f"a bug in vitexp ({what}): please report it with the lines above"
        _say(bug if where is None else printable(f"an error in your own code ({what}): {where}"), style="bold red")
    return ending(error).exit_code


def dispatch(arguments: Sequence[str]) -> int:
    """Do what the arguments say; mistakes raise ConfigError before anything is written."""
    parser = _parser()
    options, words = parser.parse_known_intermixed_args(list(arguments))
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        raise ConfigError(_unknown(unknown[0], list(arguments)))
    verb, words = _split_verb([*options.words, *words])
    if options.help:
        named = next((word for word in (verb, *words) if word in VERBS and word in arguments), None)
        Console().print(help_text(named, options.config_dir))
        return 0
    if options.version:
        print(f"vitexp {__version__}")
        return 0
    if options.shell_completion:
        return _complete(options.shell_completion)
    if options.info:
        from vitexp.config.compose import compose, searching
        from vitexp.config.extensions import folders

        compose(words, config_dirs=options.config_dir)  # a mistake is told as everywhere
        return _hand_to_hydra(["--info", options.info], [*searching(folders(options.config_dir)), *words])
    if verb == "list":
        from vitexp.verb.list import print_list

        return print_list(words, options.config_dir)
    if verb == "new":
        from vitexp.verb.new import write_new

        return write_new(words)
    if options.multirun:
        from vitexp.sweep.command import sweep

        if (processes := started()) is not None:
            raise ConfigError(f"a sweep starts its own processes, and {processes} were started for it; start one")
        return sweep(verb, words, arguments, options.config_dir)
    return _single(verb, words, arguments, options)


def _unknown(flag: str, arguments: list[str]) -> str:
    """The message for a flag that is none: a key is typed without dashes here."""
    from vitexp.config.peers import key_here

    name, equals, value = flag.lstrip("-").partition("=")
    after = arguments[arguments.index(flag) + 1 :][:1]
    if not equals and after and not after[0].startswith("-") and "=" not in after[0]:
        value = after[0]
    return (
        f"unknown option {flag}; keys have no dashes: type {key_here(name) or name}={value or 'VALUE'}; options are -m,"
        " --cfg, --info, --config-dir, --help and --version"
    )


def _single(verb: str, words: list[str], arguments: Sequence[str], options: argparse.Namespace) -> int:
    from vitexp.config.compose import canonical, compose, to_yaml
    from vitexp.run.slurm import requeued

    words = implied(verb, words)
    cfg = compose(words, config_dirs=options.config_dir)
    if options.cfg:
        print(to_yaml(cfg), end="")
        return 0
    with requeued(cfg.requeue):
        call(verb, Command(cfg, [canonical(word) for word in words], arguments))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vitexp", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"], nargs="?", const="job")
    parser.add_argument("-i", "--info", nargs="?", const="all")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    parser.add_argument("-sc", "--shell-completion")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; `vitexp --help` shows the options")


def _split_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb (train if none is given) and the words after it."""
    if words[:2] == ["data", "check"]:
        return "check", words[2:]
    if words and words[0] in VERBS:
        return words[0], words[1:]
    return "train", words


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
        _section("Exit codes", [(str(code), meaning) for code, meaning in EXIT_CODES.items()]),
    )


def _section(title: str, rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    return Group(Text(title, style="bold"), table, Text(""))


def _how_to_go_on(arguments: list[str], stopped: Interrupted) -> str:
    if {"-m", "--multirun"} & set(arguments):
        return "; the same command continues the sweep"
    resumes = stopped.in_run and _split_verb(arguments)[0] in ("train", "resume")
    folders = _parser().parse_known_intermixed_args(arguments)[0].config_dir
    flags = "".join(f" -cd {shlex.quote(folder)}" for folder in folders)
    return f"; `vitexp{flags} resume` continues the run" if resumes else ""


def _complete(query: str) -> int:
    """Answer the shell, which hands over the line in COMP_LINE: of it, Hydra knows groups and keys."""
    from vitexp.config.compose import searching
    from vitexp.config.extensions import folders

    line = os.environ.get("COMP_LINE", "")
    program, *words = line.split() or ["vitexp"]
    given = list[str]()
    for flag in ("-cd", "--config-dir"):
        while flag in words[:-1]:
            at = words.index(flag)
            given.append(words[at + 1])
            del words[at : at + 2]
    if len(words) > 1 or line.endswith(" "):
        _, words = _split_verb(words)
    search = searching(folders(folder for folder in given if os.path.isdir(folder)))
    os.environ["COMP_LINE"] = " ".join([program, *search, *words, *([""] if line.endswith(" ") else [])])
    return _hand_to_hydra(["-sc", query], [])


def _hand_to_hydra(flags: list[str], words: list[str]) -> int:
    """Let Hydra answer `--info` and tab completion, which are about its own machinery."""
    import hydra

    from vitexp.config.compose import canonical, conf_dir, register
    from vitexp.config.releases import VERSION_BASE

    register()
    sys.argv = ["vitexp", *flags, *(canonical(word) for word in words)]
    hydra.main(config_path=str(conf_dir()), config_name="config", **VERSION_BASE)(lambda cfg: None)()
    return 0


def _say(message: str, *, style: str) -> None:
    console = Console(stderr=True)
    line = Text.assemble(("vitexp: ", style), (message, style if "red" in style else ""))
    if console.is_terminal:
        console.print(line, soft_wrap=True)
    else:
        print(f"vitexp: {message}", file=sys.stderr)


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())
