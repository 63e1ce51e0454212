"""Following a run in a worker: progress and logs go to the task's log."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable

from coiled_jobs_airflow.cli import FINAL, INTERRUPTED, CoiledJobsError

if TYPE_CHECKING:
    from coiled_jobs_airflow.cli import CoiledJobs, State

# How often in a row a look at a run may fail, and how long to wait in between: a store may be away
# for minutes while the run goes on.
LOOKS = 10
PAUSE = 30.0


class Follower:
    """Follows one run to its end.

    :param program: the program
    :param log: where lines go
    :param tasks: whether what the run's tasks print is shown, too
    :param max_lines: how many of their lines are shown
    """

    def __init__(self, program: CoiledJobs, log: Any, tasks: bool, max_lines: int) -> None:
        self.program = program
        self.log = log
        self.tasks = tasks
        self.max_lines = max_lines
        self.stopped = False
        self._children: list[subprocess.Popen[bytes]] = []

    def follow(self, run: str) -> State:
        """Give the state in which the run ended, or was left by its coordinator."""
        threads: list[threading.Thread] = []
        if self.tasks:
            logs = self._start("logs", run, "--follow", stderr=subprocess.DEVNULL)
            threads = [pump(logs.stdout, Lines(self.log, self.max_lines, f"logs {run}"))]
        try:
            state = self._wait(run)
            for t in threads:
                t.join(10)
            return state
        finally:
            self.stop()
            for child in self._children:
                child.kill()
                child.wait()
            for t in threads:
                t.join(1)

    def stop(self) -> None:
        """End the waiting, from a signal handler as well; the run goes on."""
        self.stopped = True
        for child in self._children:
            child.terminate()

    def _wait(self, run: str) -> State:
        failures = 0
        while True:
            waiting = self._start("wait", run, "--json", "--no-download")
            messages = pump(waiting.stderr, Lines(self.log, None, ""))
            assert waiting.stdout is not None
            out = waiting.stdout.read()
            waiting.wait()
            messages.join(10)
            if self.stopped:
                raise InterruptedError(f"stopped waiting for run {run}")
            try:
                state = json.loads(out)
            except ValueError:
                # It cannot say: its store is away, or the run has no coordinator any more.
                try:
                    state = self.program.status(run)
                except (CoiledJobsError, subprocess.TimeoutExpired) as e:
                    failures += 1
                    if failures >= LOOKS or (isinstance(e, CoiledJobsError) and e.refused):
                        raise
                    self.log.warning("%s; looking again in %.0f s", e, PAUSE)
                    self._pause(PAUSE)
                    continue
            if state["status"] in FINAL or state["status"] == INTERRUPTED:
                return state
            failures = 0
            self._pause(1)

    def _pause(self, seconds: float) -> None:
        # In short steps: a sleep goes on after a signal handler, which may have ended the waiting.
        until = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < until:
            time.sleep(0.2)

    def _start(self, *args: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        child = self.program.popen(*args, tied=True, **kwargs)
        self._children.append(child)
        if self.stopped:  # between the two lines before
            child.terminate()
        return child


def logged(
    program: CoiledJobs, log: Any, started: Callable[[subprocess.Popen[bytes]], None], *args: str
) -> str:
    """Make a call whose messages go to a log, and give its standard output."""
    child = program.popen(*args)
    started(child)
    lines = Lines(log, None, "")
    t = pump(child.stderr, lines)
    assert child.stdout is not None
    try:
        with child.stdout:
            out = child.stdout.read()
        code = child.wait()
    except BaseException:
        child.terminate()
        raise
    t.join(10)
    if code != 0:
        raise CoiledJobsError(args[0], code, "\n".join(lines.last))
    return out.decode(errors="replace")


def pump(pipe: Any, lines: Lines) -> threading.Thread:
    """Write what comes out of a pipe, beside everything else."""

    def work() -> None:
        with pipe:
            for line in iter(pipe.readline, b""):
                lines.write(line)

    t = threading.Thread(target=work, daemon=True)
    t.start()
    return t


class Lines:
    """Writes lines to a log, up to a number of them, and says once where the rest is."""

    def __init__(self, log: Any, limit: int | None, command: str) -> None:
        self.log = log
        self.limit = limit
        self.command = command
        self.count = 0
        self.last: deque[str] = deque(maxlen=20)

    def write(self, line: bytes) -> None:
        """Write one line."""
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        self.count += 1
        self.last.append(text)
        if self.limit is None or self.count <= self.limit:
            # Never as a format: a line is data.
            self.log.log(logging.INFO, "%s", text)
        elif self.count == self.limit + 1:
            self.log.info("more than %d lines; the rest: coiled-jobs %s", self.limit, self.command)


def show(program: CoiledJobs, log: Any, limit: int | None, *args: str) -> None:
    """Write what a command prints to a log; that it cannot is no more than a warning."""
    child = program.popen(*args, tied=True, stderr=subprocess.STDOUT)
    lines = Lines(log, limit, " ".join(args))
    assert child.stdout is not None
    with child.stdout:
        for line in iter(child.stdout.readline, b""):
            lines.write(line)
            if limit is not None and lines.count > limit:
                break
    child.kill()
    child.wait()
