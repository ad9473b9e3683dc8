"""The README's tables are true."""

import re
from pathlib import Path

from vitexp.config.command import VERBS
from vitexp.config.compose import compose, options
from vitexp.config.schema import ALIASES, CHOICES, GROUPS
from vitexp.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_every_verb_has_its_row_and_no_other() -> None:
    section = TEXT.split("## Verbs")[1].split("## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.M)) == sorted(VERBS)


def test_exit_codes_are_those_of_the_help() -> None:
    section = TEXT.split("## Exit codes")[1].split("## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section, re.M)
    assert [(int(code), meaning) for code, meaning in rows] == list(EXIT_CODES.items())


def test_groups_short_names_and_data_are_listed() -> None:
    assert " ".join(GROUPS) in TEXT
    for short, key in ALIASES.items():
        assert f"`{short}` = `{key}`" in TEXT
    for option in options("data"):
        assert f"`{option}`" in TEXT


def test_the_commands_compose() -> None:
    for line in re.findall(r"^    vitexp (?!-m|evaluate|predict|resume|concat|data check)(.*?)\s*#", TEXT, re.M):
        compose(line.split())


def test_paper_rows_name_files_that_exist() -> None:
    """Globs and braces mean at least a file each; a bare name stands in the folder of the one before it."""
    section = TEXT.split("## From paper to file")[1].split("## ")[0]
    rows = re.findall(r"^\| [^|]+ \| (`.+) \|$", section, re.M)
    assert len(rows) >= 10
    for row in rows:
        names = re.findall(r"`([^`]+\.(?:py|yaml))`", row)
        assert names[0].startswith("vitexp/")
        folder = ""
        for name in names:
            folder = name.rpartition("/")[0] or folder
            for pattern in braced(f"{folder}/{name.rpartition('/')[2]}"):
                assert list(ROOT.glob(pattern)), pattern


def braced(pattern: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    return [f"{found[1]}{name}{found[3]}" for name in found[2].split(",")] if found else [pattern]


def test_pictures_exist_and_are_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert pictures
    for path in pictures:
        assert 0 < (ROOT / path).stat().st_size <= 150_000


def test_the_benchmark_commands_compose_and_each_kind_has_its_row() -> None:
    rows = re.findall(r"^\| `vitexp benchmark ([^`]+)` \|", TEXT, re.M)
    kinds = {compose(row.split()).benchmark.what for row in rows}
    assert kinds == set(CHOICES["benchmark.what"])
