"""`vitexp report` and `vitexp dashboard`: pages that need nothing but themselves, made of what the runs left."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from PIL import Image

from vitexp.cli import main
from vitexp.errors import ConfigError, ResourceError
from vitexp.files.folder import Folder
from vitexp.report.page import as_json, picture
from vitexp.report.run_page import run_page
from vitexp.run.folder import Run, all_runs, open_run
from vitexp.verb.dashboard import HOST, make_server
from vitexp.verb.report import asked, write_comparison, write_run_page

EVIL = "</script><script>document.title='owned'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
SMALL = ["data=fake", "data.sizes=[64,32,32]", "epochs=2", "bs=16", "logger=none", "quiet=true"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, and two more made of it that differ in seed and rate; the reason of the last is hostile."""
    folder = tmp_path_factory.mktemp("pages") / "outputs"
    assert main([*SMALL, "seed=0", "lr=1e-3", f"outputs={folder}"]) == 0
    first = all_runs(folder)[0]
    for seed, lr, top1 in ((1, 0.001, 0.25), (0, 0.008, 0.75)):
        path = first.path.with_name(f"{first.name}-{seed}-{lr}")
        shutil.copytree(first.path, path)
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["seed"], config["optimizer"]["lr"] = seed, lr
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        run = open_run(path)
        run.update(seed=seed, started=f"2100-01-0{1 + seed}", metrics={**run.record["metrics"], "test/top1": top1})
    run.update(state="failed", reason=EVIL)
    return folder


def test_a_run_writes_its_page_when_it_ends(outputs: Path) -> None:
    run = all_runs(outputs)[0]
    page = (run.path / "report.html").read_text()
    for part in (run.name, "What was asked", "How it went", "test/top1", "To repeat it", "data:image/png;base64,"):
        assert part in page
    for outside in ("http://", "https://", 'src="/', "@import"):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")


def hostile(outputs: Path) -> Run:
    return next(run for run in all_runs(outputs) if run.state == "failed")


def test_what_was_asked_stands_beside_the_default(outputs: Path) -> None:
    rows = {key: (value, default) for key, value, default in asked(all_runs(outputs)[0])}
    assert rows["optimizer.lr"] == ("1e-3", "0.004")
    assert rows["data"] == ("fake", "fake")
    assert rows["epochs"][0] == "2"


def test_text_from_a_run_is_text(outputs: Path) -> None:
    page = write_run_page(hostile(outputs)).read_text()
    assert EVIL not in page
    assert "&lt;/script&gt;" in page
    assert "</script" not in as_json([{"name": EVIL}])
    assert json.loads(as_json([EVIL])) == [EVIL]


def test_a_detector_has_cocos_numbers(tmp_path: Path) -> None:
    record = {"metrics": {"val/map": 0.5, "test/map": 0.4231, "test/map_small": -1.0}}
    page = run_page(Folder(tmp_path), record, state="done", asked=[])
    assert "<td>AP</td><td>50.00</td><td>42.31</td>" in page
    assert "<td>AP, small objects</td><td>–</td><td>–</td>" in page
    assert "twelve" not in run_page(Folder(tmp_path), {"metrics": {"test/top1": 0.5}}, state="done", asked=[])


def test_runs_are_compared_by_what_differs(outputs: Path) -> None:
    names = ",".join(run.name for run in all_runs(outputs))
    page = write_comparison(names, outputs).read_text()
    assert "By setting" in page
    head = page.split("Every run")[1].split("</thead>")[0]
    assert "optimizer.lr" in head
    assert "seed" in head
    assert "epochs" not in head
    assert "test/top1 against optimizer.lr" in page
    assert " ± " in page


@pytest.mark.parametrize("words", [[], ["run=last", "runs=a,b"], ["runs=only_one"]])
def test_the_report_says_what_it_takes(words: list[str], outputs: Path) -> None:
    assert main(["report", f"outputs={outputs}", *words]) in (2, 4)
    with pytest.raises(ConfigError, match="fewer than two"):
        write_comparison(all_runs(outputs)[0].name, outputs)


@pytest.fixture
def server(outputs: Path) -> Iterator[int]:
    with make_server(outputs, 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def ask(port: int, path: str, *, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request("GET", path, headers={"Host": host or f"{HOST}:{port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_dashboard_shows_every_run_and_its_page(server: int, outputs: Path) -> None:
    status, index = ask(server, "/")
    assert status == 200
    for run in all_runs(outputs):
        place = quote(run.path.relative_to(outputs.resolve()).as_posix())
        assert f"/run/{place}" in index
        status, page = ask(server, f"/run/{place}")
        assert status == 200
        assert run.name in page


def test_a_running_run_is_reloaded(server: int, outputs: Path) -> None:
    run = all_runs(outputs)[0]
    place = quote(run.path.relative_to(outputs.resolve()).as_posix())
    assert 'http-equiv="refresh"' not in ask(server, f"/run/{place}")[1]
    run.update(state="running")
    run.acquire()
    try:
        assert 'http-equiv="refresh"' in ask(server, f"/run/{place}")[1]
    finally:
        run.release()
        run.update(state="done")


@pytest.mark.parametrize("path", ["/run/../../etc/passwd", "/run/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "/run/"])
def test_the_dashboard_serves_runs_and_nothing_else(server: int, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_the_dashboard_answers_only_to_its_own_name(server: int) -> None:
    assert ask(server, "/", host="evil.example")[0] == 403
    assert ask(server, "/", host=f"localhost:{server}")[0] == 200


def test_a_damaged_run_costs_one_page(server: int, outputs: Path, tmp_path: Path) -> None:
    broken = outputs / "2000-01-01" / "000000-broken"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text('{"chosen": {}, "metrics": {}, "started": "1999"}')
    (broken / "metrics.csv").write_text("step,epoch\nx,y\n")
    try:
        assert ask(server, "/run/2000-01-01/000000-broken")[0] in (200, 500)
        assert ask(server, "/")[0] == 200
    finally:
        shutil.rmtree(broken.parent)


def test_a_taken_port_is_said(server: int, outputs: Path) -> None:
    with pytest.raises(ResourceError, match=f"port={server} cannot"):
        make_server(outputs, server)


def in_browser(page: Path, script: str, folder: Path) -> tuple[str, str]:
    """The document's title after `script` ran in the loaded page, and what the console said."""
    probe = folder / "probe.html"
    tail = f"<script>window.addEventListener('load', () => {{ {script} }});</script></body>"
    probe.write_text(page.read_text().replace("</body>", tail))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,900"]
    command += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=2000"]
    done = subprocess.run(
        [*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout.split("<title>")[1].split("</title>")[0], "\n".join(console)


def test_a_picture_of_several_panels_takes_the_width_of_the_page(tmp_path: Path) -> None:
    wide, narrow = (tmp_path / f"{name}.png" for name in ("wide", "narrow"))
    Image.new("L", (1950, 8)).save(wide)
    Image.new("L", (1050, 8)).save(narrow)
    assert picture(wide.read_bytes(), "amplitude")["big"]
    assert not picture(narrow.read_bytes(), "distance")["big"]


@needs_browser
def test_the_page_of_a_run_in_a_browser(outputs: Path, tmp_path: Path) -> None:
    """No console error, every chart and picture drawn, hover shows values, nothing wider than a phone's window."""
    script = """
      const svg = document.querySelector('.chart svg'), box = svg.getBoundingClientRect();
      const where = { clientX: box.left + box.width / 2, clientY: box.top + 20 };
      svg.dispatchEvent(new PointerEvent('pointermove', where));
      document.title = JSON.stringify({
        charts: document.querySelectorAll('.chart svg polyline').length,
        broken: [...document.images].filter((image) => !image.naturalWidth).length,
        images: document.images.length,
        tip: document.querySelector('.tip').textContent,
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      });"""
    title, console = in_browser(all_runs(outputs)[0].path / "report.html", script, tmp_path)
    assert console == ""
    seen = json.loads(title)
    assert seen["charts"] >= 4
    assert seen["images"] >= 2
    assert seen["broken"] == 0
    assert "train:" in seen["tip"]
    assert seen["overflow"] <= 0


@needs_browser
def test_the_comparison_sorts_in_a_browser(outputs: Path, tmp_path: Path) -> None:
    """Numerically: one click ascending, another descending."""
    page = write_comparison(",".join(run.name for run in all_runs(outputs)), outputs)
    script = """
      const table = [...document.querySelectorAll('table.sortable')].pop();
      const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === 'test/top1');
      const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.value));
      table.tHead.rows[0].cells[column].click();
      const up = values();
      table.tHead.rows[0].cells[column].click();
      document.title = JSON.stringify({ up, down: values() });"""
    title, console = in_browser(page, script, tmp_path)
    assert console == ""
    seen = json.loads(title)
    assert seen["up"] == sorted(seen["up"])
    assert seen["down"] == sorted(seen["up"], reverse=True)
    assert len(seen["up"]) == 3


def test_the_report_is_written_without_torch(outputs: Path) -> None:
    run = all_runs(outputs)[0].path
    code = f"import sys; from vitexp.cli import main; main(['report', 'run={run}']); assert 'torch' not in sys.modules"
    (run / "report.html").unlink()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (run / "report.html").is_file()
