"""What all programs share when they are run: signals, exit codes, what the terminal can print, the log on stderr."""

import atexit
import codecs
import errno
import functools
import importlib
import io
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from bat_dist.errors import RunError, UserError, not_installed

_PLAIN = {"±": "+-", "×": "x", "–": "-", "…": "...", "α": "alpha", "β": "beta", "σ": "sigma", "≤": "<=", "≥": ">="}
_CODE_OF_SIGPIPE = 128 + 13
_STOPPED_BY: list[str] = []  # the signal that ended this process, if one did
_EXIT_CODE: list[int] = []  # of this program, once it is known


def end_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the program as Ctrl-C does, so that what is open is closed.  Main thread only.

    SIGTERM comes from a scheduler that wants the machine, SIGHUP from a lost ssh connection.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)


def _stop(number: int, _frame: Any) -> NoReturn:
    for again in (signal.SIGTERM, signal.SIGHUP):  # one is enough: the second must not break the ending
        signal.signal(again, signal.SIG_IGN)
    if number == signal.SIGHUP:  # nobody reads any more, and writing there would fail
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
    # Not an exception of our own: while Ray waits, it lets only this one through whole.
    _STOPPED_BY.append(signal.Signals(number).name)
    raise KeyboardInterrupt


def run_command(body: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `body(argv)` and return the exit code: its own (None is 0), 2 for UserError, 130 for Ctrl-C, 1 for a signal.

    If whoever reads the output has left, as `head` does, it is 141, without a word: a shell's code for SIGPIPE.
    Other exceptions pass through: Python prints the traceback and exits with 1. A body that ends incomplete
    says how to go on and returns 1.
    """
    _print_what_the_terminal_can()
    _log_to_stderr()
    _STOPPED_BY.clear()
    with handlers_kept():
        end_on_signals()
        return _exit_code(body, sys.argv[1:] if argv is None else argv)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of SIGTERM and SIGHUP back at the end of the block.  Does nothing outside the main thread."""
    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(body: Callable[[Sequence[str]], int | None]) -> Callable[..., int]:
    """Make `main(argv=None)` of what a program does: it returns the exit code, as `run_command` does."""

    @functools.wraps(body)
    def main(argv: Sequence[str] | None = None) -> int:
        return run_command(body, argv)

    return main


def run_installed(verb: str) -> NoReturn:
    """End this process with the exit code of the installed program, for its file that is run as a script.

    The file's own `main` would not do: of a script that is copied alone to a cluster's head node, nothing that Ray
    pickles is found elsewhere.
    """
    exit_with(importlib.import_module(f"bat_dist.{verb}").main())


def exit_with(code: int) -> NoReturn:
    """End this process with the exit code of a program: Python's exit functions run, those of native libraries do not.

    A thread of Ray 2.60 that exports metrics outlives the session.  If it logs after the destructor of Ray's log has
    run, the process ends with SIGSEGV (139 in a shell), although all results are written.
    """
    _EXIT_CODE.append(code)
    raise SystemExit(code)


@atexit.register  # at import, before all others: Python calls it last
def _skip_native_destructors() -> None:
    if _EXIT_CODE:
        for stream in (sys.stdout, sys.stderr):
            if stream:  # None where the shell closed it
                with suppress(OSError):  # of which `run_command` has told
                    stream.flush()
        os._exit(_EXIT_CODE[0])


def _print_what_the_terminal_can() -> None:
    """Where its encoding lacks a character (PYTHONIOENCODING=ascii, LANG=C), write a plain one, not a traceback."""
    codecs.register_error("plain", _in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(char, "?") for char in error.object[error.start : error.end]), error.end


def _exit_code(body: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    try:
        code = body(argv) or 0
        if sys.stdout:
            sys.stdout.flush()  # here, where it is told what fails
        return code
    except UserError as error:
        message = str(getattr(error, "cause", None) or error)  # Ray raises a worker's error inside a subclass
        print("error: " + message.replace("\n", "\nerror: "), file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (lack := not_installed(error)) is None:
            raise
        print(f"error: {lack}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and any(map(_has_lost_its_reader, (sys.stdout, sys.stderr))):
            return _CODE_OF_SIGPIPE
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{where}: make room; the same command then goes on from there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = f"stopped by {_STOPPED_BY[-1]}" if _STOPPED_BY else "interrupted"
        print(f"{how}: finished work is kept; the same command goes on from there", file=sys.stderr)
        return 1 if _STOPPED_BY else 130
    except SystemExit as stop:
        if stop.code:
            raise
        return 0  # --help


def _has_lost_its_reader(stream: TextIO | None) -> bool:
    """Is it a pipe that nobody reads any more?"""
    if stream is None:
        return False
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # a stream without a file, or a closed one
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _log_to_stderr() -> None:
    """What the project logs, from INFO on; once, and not where the caller has set it up."""
    logger = logging.getLogger("bat_dist")
    if not logger.handlers:
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _StderrHandler(logging.StreamHandler):
    """Writes to what sys.stderr is at the time, not to what it was."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
