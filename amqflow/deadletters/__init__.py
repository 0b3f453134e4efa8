"""The dead-letter desk: see what failed, mend it, run it again (design 7)."""

from amqflow.deadletters.desk import DeadLetterDesk, DeskApp
from amqflow.deadletters.draft import Draft, InvalidDraft
from amqflow.deadletters.export import read_line, write_line
from amqflow.deadletters.filters import Filters
from amqflow.deadletters.groups import Group, Groups
from amqflow.deadletters.homes import Home
from amqflow.deadletters.parked import Parked, Row
from amqflow.deadletters.replay import Refusal, Report, Target
from amqflow.deadletters.safety import UnsafeLook

__all__ = [
    "DeadLetterDesk",
    "DeskApp",
    "Draft",
    "Filters",
    "Group",
    "Groups",
    "Home",
    "InvalidDraft",
    "Parked",
    "Refusal",
    "Report",
    "Row",
    "Target",
    "UnsafeLook",
    "read_line",
    "write_line",
]
