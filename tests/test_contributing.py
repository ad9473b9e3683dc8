"""CONTRIBUTING.md leads to what it names."""

from tests.contributing import PAGE, ROW, lines_of

QUESTIONS = 12


def test_each_answer_names_a_symbol_and_its_lines() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert len({row[0].split("|")[1] for row in rows}) == QUESTIONS
    for _, file, symbol, lines, _ in rows:
        now = lines_of(file, symbol)
        assert lines == now, f"{symbol} is in lines {now} of {file}: python -m tests.contributing writes them"
