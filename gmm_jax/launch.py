"""Local ranks: start them, watch them, and leave none behind. Standard library alone, so that it is there at once.

A rank is a process of jax.distributed, which waits for ever for one that is stuck. So each rank says through a pipe of
its own that it lives, from a thread, and whether it has met the others; the launcher hears, and ends all when one dies,
falls silent, or the time is up: SIGTERM, after some seconds SIGKILL, to the whole process group of each.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, NamedTuple

BEAT = 0.5  # seconds between two signs of life
GRACE = 5.0  # seconds between SIGTERM and SIGKILL, and for the others to end after one has failed
VARIABLE = "GMM_JAX_RANK"  # rank, ranks, coordinator, seconds to join, descriptor of the pipe, cores
ALIVE, JOINED = b".", b"J"
LAST_WORDS = 12  # lines of a failed rank's output that are shown


class Place(NamedTuple):
    """Where a rank stands among the others."""

    rank: int
    n_ranks: int
    coordinator: str  # HOST:PORT, served by rank 0
    join: float  # seconds within which all must have met
    pipe: int  # descriptor through which it says that it lives
    cores: tuple[int, ...]  # it may run on; empty: any


@dataclass
class Rank:
    """A rank as the launcher sees it."""

    number: int
    process: subprocess.Popen
    pipe: int
    output: IO[bytes] | None  # of all but rank 0, which writes where the launcher does
    heard: float = field(default_factory=time.monotonic)  # when it last gave a sign of life
    joined: bool = False

    @property
    def name(self) -> str:
        return f"rank {self.number} (process {self.process.pid})"

    @property
    def last_words(self) -> str:
        if self.output is None:
            return ""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").splitlines()[-LAST_WORDS:]
        return "".join(f"\n  rank {self.number}: {line}" for line in lines)

    def close(self) -> None:
        os.close(self.pipe)
        if self.output is not None:
            self.output.close()


class Failure(NamedTuple):
    """Why the launcher ends all ranks."""

    exit_code: int
    sentence: str
    last_words: str = ""  # of the rank that is to blame


# ---- in the launcher


def launch(
    command: Sequence[str],
    n_ranks: int,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout: float | None = None,
    silence: float = 30.0,
    join: float = 60.0,
    cores_each: int = 0,
) -> int:
    """Run the command as n_ranks ranks on this machine; the exit code, 0 when every rank ended well.

    Rank 0 writes to stdout and stderr; of another one its last words are shown if it fails. When it returns, or is
    interrupted, no rank is left.

    Args:
        host: the address that rank 0 listens at, and at no other; traffic is neither encrypted nor authenticated.
        port: 0 finds a free one.
        timeout: seconds that all may take.
        silence: seconds without a sign of life after which a rank counts as stuck.
        join: seconds within which all must have met at rank 0.
        cores_each: cores that each rank has to itself, where the system can do so; 0 shares all.

    Raises:
        ValueError: there is nothing to run, or a number that makes no sense.
    """
    if not command:
        raise ValueError("launch needs a command: gmm-jax launch -n 2 -- fit data.npy -k 3.")
    limits = {"n_ranks": n_ranks, "silence": silence, "join": join, "timeout": 1.0 if timeout is None else timeout}
    for name, value in limits.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive; got {value!r}.")
    coordinator = f"{host}:{port or _free_port(host)}"
    ranks = []
    with _terminated_as_interrupted():
        try:
            for number in range(n_ranks):
                place = (number, n_ranks, coordinator, join)
                ranks.append(_start(command, place, _cores(number, cores_each)))
            failure = _watch(ranks, coordinator, timeout, silence, join)
        finally:
            _end(ranks)
            for rank in ranks:
                rank.close()
    if failure is None:
        return 0
    if failure.sentence:
        print(f"gmm-jax launch: {failure.sentence}; all ranks were ended.{failure.last_words}", file=sys.stderr)
    return failure.exit_code


def _free_port(host):
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise ValueError(f"host {host} is no address of this machine ({error.strerror}): use 127.0.0.1.") from None
        return probe.getsockname()[1]


def _cores(number, each):
    if not each or not hasattr(os, "sched_getaffinity"):
        return ()
    every = sorted(os.sched_getaffinity(0))
    return tuple(every[(number * each + i) % len(every)] for i in range(each))


def _start(command, place, cores):
    hears, says = os.pipe()
    os.set_blocking(hears, False)
    # JAX warns that it may wait for ever behind a proxy
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment[VARIABLE] = " ".join([*map(str, (*place, says)), ",".join(map(str, cores))])
    output = tempfile.TemporaryFile() if place[0] else None  # noqa: SIM115 - open as long as the rank
    try:
        process = subprocess.Popen(  # noqa: S603 - what the user asked for, without a shell
            list(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            pass_fds=(says,),
            start_new_session=True,  # a group of its own: Ctrl-C reaches the launcher alone, which ends the whole group
        )
    finally:
        os.close(says)
    return Rank(place[0], process, hears, output)


def _watch(ranks, coordinator, timeout, silence, join) -> Failure | None:
    """Until every rank has ended well (None), or something is wrong."""
    started = before = time.monotonic()
    while True:
        now = time.monotonic()
        for rank in ranks:
            # when the launcher itself was stopped, that was no rank's silence
            rank.heard += max(0.0, now - before - 1.0)
            _hear(rank, now)
        before = now
        if any(rank.process.poll() not in (None, 0) for rank in ranks):
            return _who_failed(ranks)
        left = [rank for rank in ranks if rank.process.poll() is None]
        if not left:
            return None
        for rank in left:
            if now - rank.heard > silence:
                return Failure(
                    1, f"{rank.name} {_why_silent(rank)}: no sign of life for {silence:g} s", rank.last_words
                )
        missing = [rank for rank in left if not rank.joined]
        if missing and now - started > join:
            who = ", ".join(rank.name for rank in missing)
            sentence = f"the ranks did not meet at {coordinator} within {join:g} s: {who} never came"
            return Failure(1, sentence, missing[0].last_words)
        if timeout is not None and now - started > timeout:
            who = ", ".join(rank.name for rank in left)
            return Failure(1, f"the time of {timeout:g} s is up, and {who} had not ended")
        time.sleep(0.05)


def _hear(rank, now):
    try:
        while said := os.read(rank.pipe, 4096):
            rank.heard, rank.joined = now, rank.joined or JOINED in said
    except BlockingIOError:
        pass


def _who_failed(ranks):
    """The first that failed, once the others have had a little time to end in the same way."""
    first = next(rank for rank in ranks if rank.process.poll() not in (None, 0))
    code = first.process.poll()
    if code < 0:
        return Failure(1, f"{first.name} was killed by {signal.Signals(-code).name}", first.last_words)
    until = time.monotonic() + GRACE
    while time.monotonic() < until and any(rank.process.poll() is None for rank in ranks):
        time.sleep(0.05)
    if all(rank.process.poll() == code for rank in ranks):
        return Failure(code, "")  # all for one reason, and rank 0 has said which
    return Failure(code, f"{first.name} ended with exit code {code}", first.last_words)


def _why_silent(rank):
    try:
        with open(f"/proc/{rank.process.pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except OSError:
        state = ""
    return "is stopped (SIGSTOP)" if state == "T" else "is stuck"


def _end(ranks):
    """SIGTERM, after GRACE seconds SIGKILL, to the process group of every rank, ended or not: it may have children."""
    patient = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
    try:
        for sent, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            groups = [rank for rank in ranks if _signal_group(rank, sent)]
            for rank in groups:
                _signal_group(rank, signal.SIGCONT)  # one that is stopped would not notice
            until = time.monotonic() + wait
            while time.monotonic() < until and any(_signal_group(rank, 0) for rank in groups):
                time.sleep(0.02)
    finally:
        if patient is not None:
            signal.signal(signal.SIGINT, patient)


def _signal_group(rank, number):
    """Whether there was anybody to get it."""
    rank.process.poll()  # a process that nobody has asked for still counts as one of its group
    try:
        os.killpg(rank.process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class Terminated(KeyboardInterrupt):
    """SIGTERM to the launcher: it ends its ranks as after Ctrl-C."""


@contextmanager
def _terminated_as_interrupted():
    def leave(*_):
        raise Terminated

    if not _in_main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()


# ---- in a rank

_here: Place | None = None


def place() -> Place | None:
    """Where this process stands, if a launcher has started it; from the first call on it says that it lives."""
    global _here
    said = os.environ.pop(VARIABLE, None)  # it is not for the processes that this one starts
    if said is not None:
        rank, n_ranks, coordinator, join, pipe, cores = said.split(" ")
        cores = tuple(int(core) for core in cores.split(",") if core)
        _here = Place(int(rank), int(n_ranks), coordinator, float(join), int(pipe), cores)
        if cores:
            os.sched_setaffinity(0, cores)
        threading.Thread(target=_beat, args=(_here.pipe,), daemon=True).start()
    return _here


def await_coordinator(here: Place) -> None:
    """Wait until rank 0 listens; JAX itself would abort the process where it never does.

    Raises:
        ValueError: it did not come in time.
    """
    host, _, port = here.coordinator.rpartition(":")
    until = time.monotonic() + here.join
    while here.rank:
        try:
            socket.create_connection((host, int(port)), timeout=BEAT).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise ValueError(
                    f"rank {here.rank}: the coordinator, rank 0 at {here.coordinator}, did not come within "
                    f"{here.join:g} s: see what became of rank 0, and whether that address can be reached."
                ) from None
        time.sleep(0.1)


def say_joined() -> None:
    """This rank has met the others."""
    if _here is not None:
        os.write(_here.pipe, JOINED)


def _beat(pipe):
    while True:
        try:
            os.write(pipe, ALIVE)
        except OSError:  # nobody hears: the launcher is gone, and no rank outlives it
            os.killpg(os.getpgrp(), signal.SIGKILL)
        time.sleep(BEAT)
