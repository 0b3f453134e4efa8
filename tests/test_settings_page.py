"""The page of settings names every setting and its default, and no other."""

import re
from pathlib import Path

from amqflow.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_page_lists_every_setting_with_its_default():
    listed = dict(re.findall(r"^\| `(\w+)` \| `(.*)` \|$", PAGE.read_text(), re.MULTILINE))
    known = {
        name: repr(field.get_default(call_default_factory=True))
        for name, field in Settings.model_fields.items()
    }
    assert listed == known
