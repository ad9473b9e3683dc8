"""README and docs: every command composes, those marked `run` run, every table and file name is true."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitexp import cli
from vitexp.config.command import VERBS
from vitexp.config.compose import options
from vitexp.config.schema import ALIASES, CHOICES, GROUPS
from vitexp.errors import EXIT_CODES
from vitexp.sweep import command as sweep_command

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# extending.md lays whole projects out and has a test of its own.
PAGES = [ROOT / "README.md", *sorted(set(DOCS.glob("*.md")) - {DOCS / "extending.md"})]
# A block, and the comment on the line before it: `<!-- run -->` or `<!-- run slow -->`.
FENCE = re.compile(r"^(?:<!-- (.*) -->\n)?```(.*)\n((?:.*\n)*?)```$", re.M)


def blocks(page: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Each shell block of a page: its mark, and the words after `vitexp` of its commands."""
    for mark, language, text in FENCE.findall(page.read_text()):
        if language == "sh":
            lines = text.replace("\\\n", " ").splitlines()
            split = [shlex.split(line, comments=True) for line in lines]
            yield mark, [words[words.index("vitexp") + 1 :] for words in split if "vitexp" in words]


def commands(page: Path) -> list[list[str]]:
    """Every command of a page: those of its blocks, and those between backticks that give a value."""
    prose = FENCE.sub("", page.read_text())
    inline = [shlex.split(text)[1:] for text in re.findall(r"`(vitexp [^`]*=[^`]*)`", prose) if "..." not in text]
    return [words for _, block in blocks(page) for words in block] + inline


def section(page: str, title: str) -> str:
    return (DOCS / page).read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.M)


class Composed(Exception):
    """A sweep has composed every job and would start now."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_composes(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line checks each as typed, up to the point where a verb or a job would start."""

    def start(*_: object) -> None:
        raise Composed

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(cli, "call", lambda verb, command: None)
    monkeypatch.setattr(sweep_command, "_open", start)
    for words in commands(page):
        if {"-m", "--multirun"} & set(words):
            with pytest.raises(Composed):
                cli.dispatch(words)
        else:
            assert cli.dispatch(words) == 0, words


@pytest.mark.parametrize("mark", ["run", pytest.param("run slow", marks=pytest.mark.slow)])
def test_the_marked_blocks_run(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, each in a folder of its own: the blocks marked `run`, or `run slow`, one after another."""
    marked = {page: [block for found, block in blocks(page) if found == mark] for page in PAGES}
    assert any(marked.values())
    for page, commands_of_blocks in marked.items():
        (tmp_path / page.stem).mkdir()
        monkeypatch.chdir(tmp_path / page.stem)
        for words in (words for block in commands_of_blocks for words in block):
            assert cli.main(words) == 0, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_written_in_one_way(page: Path) -> None:
    """No command is indented or stands in another kind of block, where the tests above would not see it."""
    text = page.read_text()
    assert not re.findall(r"^ {4}(?:vitexp|make) .*$", text, re.M)
    others = [body for _, language, body in FENCE.findall(text) if language != "sh"]
    assert not [line for body in others for line in body.splitlines() if line.startswith(("vitexp ", "make "))]


@pytest.mark.parametrize("page", [*PAGES, DOCS / "extending.md"], ids=lambda page: page.stem)
def test_blocks_open_as_the_site_reads_them(page: Path) -> None:
    """A language, and perhaps a title: with anything else behind it the site takes the fence for prose."""
    opened = re.findall(r"^```(.*)$", page.read_text(), re.M)[::2]
    assert not [info for info in opened if not re.fullmatch(r'\w+( title="[^"]+")?', info)]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8_000


def test_every_verb_has_its_row_and_no_other() -> None:
    assert sorted(first_column(section("commands.md", "Verbs"))) == sorted(VERBS)


def test_exit_codes_are_those_of_the_help() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section("troubleshooting.md", "Exit codes"), re.M)
    assert [(int(code), meaning) for code, meaning in rows] == list(EXIT_CODES.items())


def test_groups_short_names_and_options_are_listed() -> None:
    text = (DOCS / "commands.md").read_text()
    assert " ".join(GROUPS) in text
    for short, key in ALIASES.items():
        assert f"`{short}` = `{key}`" in text
    for page, group in {"data": "data", "regimes": "regime", "attention": "attention", "runs": "logger"}.items():
        text = (DOCS / f"{page}.md").read_text()
        assert not [option for option in options(group) if f"`{option}`" not in text]
    analyses = set(first_column((DOCS / "analyses.md").read_text()))
    assert analyses == set(options("analysis")) - {"none"}


def test_the_index_names_every_page() -> None:
    """The index and the README lead to each page, and to no other."""
    pages = {page.name for page in DOCS.glob("*.md")}
    assert set(re.findall(r"\]\((\w[\w-]*\.md)\)", (DOCS / "index.md").read_text())) == pages - {"index.md"}
    assert set(re.findall(r"\]\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text())) == pages - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page: Path) -> None:
    """Globs and braces mean at least a file each; in a table row a bare name stands in the folder of the one before."""
    for line in page.read_text().splitlines():
        folder = ""
        for name in re.findall(r"`((?:[\w{},*.-]+/)*[\w{},*-]+\.(?:py|yaml))`", line):
            if "/" not in name and not folder:
                continue  # a file of a run or of a user
            folder = name.rpartition("/")[0] or folder
            for pattern in braced(f"{folder}/{name.rpartition('/')[2]}"):
                assert list(ROOT.glob(pattern)), pattern


def braced(pattern: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    return [f"{found[1]}{name}{found[3]}" for name in found[2].split(",")] if found else [pattern]


def test_pictures_exist_and_are_small() -> None:
    found = [(page, re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())) for page in PAGES]
    pictures = [page.parent / path for page, paths in found for path in paths]
    assert pictures
    assert not [path for path in pictures if not 0 < path.stat().st_size <= 150_000]


def test_each_kind_of_benchmark_has_its_row() -> None:
    rows = re.findall(r"^\| `vitexp benchmark ([^`]+)` \|", section("benchmarks.md", "Measure speed"), re.M)
    kinds = {dict(word.split("=") for word in row.split()).get("what", "model") for row in rows}
    assert kinds == set(CHOICES["benchmark.what"])
