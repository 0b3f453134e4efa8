"""How much each measure does: the full run, and the short one that shows everything works."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """Counts of a run; durations are seconds.

    Args:
        rounds: Each contestant's runs; medians are over these.
        messages: Published and drained per run.
        slow_messages: Published where each waits for its confirm and nothing is drained.
        warm_up: Publishes at the start of each run that are not timed.
        calls: Round trips per run.
        members: Members of a chord; one of ours runs with twice as many.
        delayed: Delayed messages of the lateness run.
        lead: Until the first of them is due: longer than publishing them takes.
        spread: From the first due one to the last.
        pending: Delayed messages that wait while the worker's memory is looked at.
        prioritised: Messages of mixed priority.
        injected: Urgent messages sent while these are worked off.
        pause: What each of these tasks sleeps.
        overruns: Tasks that run into a limit.
        starts: Process starts.
        queues: Queues of the topology that is planned and applied.
        entries: Entries due each second where the scheduler is measured.
        idle_entries: Entries of a scheduler that has nothing to do.
        scheduled: Seconds a scheduler is watched.
        deadline: The longest any child may take.
    """

    rounds: int
    messages: int
    slow_messages: int
    warm_up: int
    calls: int
    members: int
    delayed: int
    lead: float
    spread: float
    pending: int
    prioritised: int
    injected: int
    pause: float
    overruns: int
    starts: int
    queues: int
    entries: int
    idle_entries: int
    scheduled: float
    deadline: float

    def but(self, **counts: int | None) -> Scale:
        """Return this scale with those counts changed that are given."""
        return replace(self, **{name: value for name, value in counts.items() if value})


FULL = Scale(
    rounds=3,
    messages=20_000,
    slow_messages=4_000,
    warm_up=500,
    calls=300,
    members=5_000,
    delayed=3_000,
    lead=5.0,
    spread=10.0,
    pending=100_000,
    prioritised=10_000,
    injected=50,
    pause=0.001,
    overruns=8,
    starts=5,
    queues=500,
    entries=1_000,
    idle_entries=10_000,
    scheduled=15.0,
    deadline=240.0,
)

QUICK = Scale(
    rounds=1,
    messages=300,
    slow_messages=100,
    warm_up=20,
    calls=20,
    members=50,
    delayed=100,
    lead=1.5,
    spread=1.0,
    pending=500,
    prioritised=300,
    injected=5,
    pause=0.002,
    overruns=3,
    starts=1,
    queues=10,
    entries=20,
    idle_entries=100,
    scheduled=2.0,
    deadline=30.0,
)
