"""An analysis in a folder: a table of all its rows, a picture, and a sentence where there is no room."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vitexp.analysis.base import Analysis
from vitexp.analysis.write import summary_table, write
from vitexp.errors import ResourceError
from vitexp.files.folder import Folder


class Count(Analysis):
    name = "count"

    def measure(self, subject: Any) -> int:
        return 0

    def summary(self, measured: int) -> dict[str, float]:
        return {"largest": float(measured)} | ({"odd": 1.0} if measured % 2 else {})

    def rows(self, measured: int) -> list[dict[str, Any]]:
        return [{"place": place, "value": place / 3} for place in range(measured)]

    def draw(self, measured: Any, out: Path, title: str) -> None:
        out.write_text(f"{title}: {sorted(measured)}")


def test_rows_of_all_measurements_under_one_header(tmp_path: Path) -> None:
    files = write(Count(), {"trained": 2, "untrained": 1}, Folder(tmp_path, "new", "folder"), title="tiny")
    assert [file.name for file in files] == ["count.csv", "count.png", "count.svg"]
    assert files[0].read_bytes() == b"of,place,value\ntrained,0,0\ntrained,1,0.333333\nuntrained,0,0\n"
    assert files[1].read_text() == "tiny: ['trained', 'untrained']"
    write(Count(), {"trained": 1}, Folder(tmp_path, "new", "folder"), title="tiny")
    assert files[0].read_bytes() == b"of,place,value\ntrained,0,0\n", "written anew"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"cannot write .*count\.csv: .*; free space, or outputs=FOLDER"):
        write(Count(), {"trained": 1}, Folder(tmp_path / "file"), title="tiny")


def test_headline_values_stand_beside_each_other() -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(summary_table(Count(), {"trained": 3, "untrained": 2}))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert ["count", "trained", "untrained"] in lines
    assert [line[0] for line in lines if line[0] in ("largest", "odd")] == ["largest", "odd"]
