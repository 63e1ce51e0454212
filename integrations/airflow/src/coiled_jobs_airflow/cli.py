"""The coiled-jobs program: its arguments, exit codes and JSON."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

State = dict[str, Any]
"""The state of a run, as ``status --json`` gives it."""

FINAL = frozenset({"succeeded", "failed", "stopped", "cancelled"})
INTERRUPTED = "interrupted"

# Exit codes of the program.
USAGE = 2


class CoiledJobsError(Exception):
    """The program could not do what it was asked; the message is what it said."""

    def __init__(self, command: str, code: int, said: str) -> None:
        super().__init__(f"coiled-jobs {command} ended with exit code {code}: {said or 'no message'}")
        self.code = code

    @property
    def refused(self) -> bool:
        """Say whether the same call would be refused again: bad usage, a bad file, an unknown run."""
        return self.code == USAGE


def page_url(base: str | None, run: str) -> str | None:
    """Give the address of a run on the page of ``coiled-jobs serve``."""
    return f"{base.rstrip('/')}/runs/{run}" if base else None


def param_text(value: Any) -> str:
    """Write a parameter as ``--param`` takes it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


@dataclass
class CoiledJobs:
    """Calls the program, always as a list of arguments and never through a shell."""

    binary: str
    store: str | None = None
    page: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def command(self, *args: str) -> list[str]:
        """Give the arguments of a call."""
        # The store last: it belongs to every command, and tests read the others first.
        return [self.binary, *args, *([f"--store={self.store}"] if self.store else [])]

    def environ(self) -> dict[str, str]:
        """Give the environment of a call: this process's, with ``env`` on top, and no live view."""
        return {**os.environ, "NO_COLOR": "1", "CI": "true", **self.env}

    def popen(self, *args: str, tied: bool = False, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start a call. One that is tied ends with this process, however that ends."""
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        if tied and _prctl is not None:
            kwargs["preexec_fn"] = _end_with_parent
        # In a task, standard input is Airflow's own connection to the supervisor.
        kwargs["stdin"] = subprocess.DEVNULL
        return subprocess.Popen(self.command(*args), env=self.environ(), **kwargs)

    def call(self, *args: str, timeout: float | None = None) -> str:
        """Make a call and give its standard output."""
        process = self.popen(*args)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        if process.returncode != 0:
            raise CoiledJobsError(args[0], process.returncode, _text(err))
        return _text(out)

    async def acall(self, *args: str, timeout: float = 120) -> str:
        """Make a call without blocking an event loop."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*args),
            env=self.environ(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        if process.returncode != 0:
            raise CoiledJobsError(args[0], process.returncode or 0, _text(err))
        return _text(out)

    def apply_args(
        self,
        file: str,
        key: str,
        params: Mapping[str, Any] | None = None,
        more: Sequence[str] = (),
    ) -> list[str]:
        """Give the arguments that submit a file under a key."""
        args = ["apply", file, "--detach", "--json", "--yes", f"--key={key}"]
        for name, value in (params or {}).items():
            if value is not None:
                args += ["--param", f"{name}={param_text(value)}"]
        return [*args, *more]

    def status(self, run: str) -> State:
        """Look at a run."""
        return _document("status", self.call("status", run, "--json", timeout=120))

    async def astatus(self, run: str) -> State:
        """Look at a run without blocking an event loop."""
        return _document("status", await self.acall("status", run, "--json"))

    def find(self, key: str) -> str | None:
        """Find the run of a key; None if there is none (yet)."""
        return _first(self.call("runs", f"--key={key}", "--json", timeout=120))

    async def afind(self, key: str) -> str | None:
        """Find the run of a key without blocking an event loop."""
        return _first(await self.acall("runs", f"--key={key}", "--json"))

    def cancel(self, run: str, patience: float) -> bool:
        """Cancel a run: True when it has ended within ``patience`` seconds.

        The request is on record within moments. The call is a session of its own and goes on
        when this process is ended while it waits.
        """
        process = self.popen(
            "cancel", run, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            return process.wait(patience) == 0
        except subprocess.TimeoutExpired:
            return False

    def results(self, run: str, function: str, limit: int) -> list[Any]:
        """Give the results of a function in the order of its items, null where an item failed.

        More than ``limit`` bytes of them are an OverflowError, and are not held in memory.
        """
        values, size = [], 0
        process = self.popen("results", run, function, "--format=jsonl", stderr=subprocess.DEVNULL, tied=True)
        try:
            for line in _lines(process):
                value = json.loads(line)["result"]
                size += len(json.dumps(value))
                if size > limit:
                    raise OverflowError(f"the results of {function} are more than {limit} bytes")
                values.append(value)
            if (code := process.wait()) != 0:
                raise CoiledJobsError("results", code, f"the results of {function} cannot be read")
        finally:
            process.kill()
            process.wait()
            _close(process)
        return values


def _document(command: str, text: str) -> Any:
    """Read the JSON that a command gave."""
    try:
        return json.loads(text)
    except ValueError as e:
        raise CoiledJobsError(command, 0, f"not JSON: {text[:200]!r}") from e


def _first(text: str) -> str | None:
    runs = _document("runs", text)
    return runs[0]["run"] if runs else None


def _text(b: bytes) -> str:
    return b.decode(errors="replace").strip()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    return iter(process.stdout.readline, b"")


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


# Only Linux can tie a child to its parent. Looked up here, because between fork and exec
# nothing may be loaded.
_prctl: Callable[..., int] | None = None
if sys.platform == "linux":
    with contextlib.suppress(OSError, AttributeError):
        _prctl = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    assert _prctl is not None
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
