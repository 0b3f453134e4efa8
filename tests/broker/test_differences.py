"""The documentation shows the table of differences that the suite asks."""

import re
from pathlib import Path

from tests.broker import differences

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "embedded-broker.md"


def test_the_page_shows_the_table():
    shown = re.search(
        r"<!-- differences -->\n(.*?)\n<!-- /differences -->", PAGE.read_text(), re.DOTALL
    )
    assert shown is not None
    assert shown[1] == differences.page(), "see `python -m tests.broker.differences`"


def test_every_difference_is_asked_by_a_test():
    asked = "".join(
        file.read_text() for file in HERE.glob("test_*.py") if file.name != Path(__file__).name
    )
    assert [behaviour for behaviour in differences.TABLE if f'"{behaviour}' not in asked] == []


def test_no_test_asks_which_broker_it_runs_on():
    for file in HERE.glob("test_*.py"):
        if file.name != Path(__file__).name:
            assert "served.name" not in file.read_text(), file.name
