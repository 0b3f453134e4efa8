"""Every sample of docs/canvas.md runs: as it is written, against a worker."""

from __future__ import annotations

import asyncio
import doctest
import re
from pathlib import Path

from amqflow import AmqFlow, chain, chord, chunks, group, signature, xmap, xstarmap
from tests.applications import Bench

PAGE = Path(__file__).parents[1] / "docs" / "canvas.md"
TASKS = re.compile(r"(@app\.task\n.*?)```", re.DOTALL)
SAMPLES = re.compile(r"^```pycon\n(.*?)^```", re.DOTALL | re.MULTILINE)


async def test_the_samples_give_what_the_page_says(amqp_url, redis_url):
    app = AmqFlow("tasks", broker=amqp_url, backend=redis_url)
    names = {"app": app, "__name__": "tasks", "chain": chain, "chord": chord, "chunks": chunks,
             "group": group, "signature": signature, "xmap": xmap, "xstarmap": xstarmap}  # fmt: skip
    page = PAGE.read_text()
    exec(TASKS.search(page)[1], names)
    runner = doctest.DocTestRunner()
    written = []

    def run():
        for number, sample in enumerate(SAMPLES.findall(page)):
            test = doctest.DocTestParser().get_doctest(sample, names, f"sample {number}", None, 0)
            runner.run(test, out=written.append, clear_globs=False)

    async with Bench(app).working():
        await asyncio.to_thread(run)
    await app.aclose()
    results = runner.summarize(verbose=False)
    assert results.attempted > 40
    assert not results.failed, "".join(written)
