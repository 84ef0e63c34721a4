"""Runs `experiments.train` over and over in one directory, each process killed by SIGKILL.

Every process goes on where the one before it was killed; the last is left alone. All are forked
from this one, which has imported everything but started nothing: that saves seconds each.

    python tests/helpers/kill_chain.py WORKDIR KILLS FLAGS...

KILLS is a JSON list; a process dies before its n-th file operation in the directory ({"nth": n}),
before its first one of a name on a path that holds a text ({"event": "open", "path": "x"}), or
after a delay ({"delay": seconds}). Prints how each process ended, as JSON.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time

from advfeat.runs import runner
from experiments.shared import progress
from experiments.train import flags as train_flags, work as train_work

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "shutil.rmtree"}


def work(workdir, flags, kill):
    """The experiment in this process, up to its end."""
    progress.LOOK_SECONDS = 0.02  # saves between any two steps
    left = kill.get("nth", 1)

    def count(event, arguments):
        nonlocal left
        if event not in EVENTS or kill.get("event", event) != event:
            return
        paths = [os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes))]
        inside = [path for path in paths if path.startswith(workdir)]
        if any(kill.get("path", "") in path for path in inside):
            left -= 1
            if left == 0:
                print(f"\nkilled before {event} {inside[0]}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    if kill.keys() & {"nth", "event", "path"}:
        sys.addaudithook(count)
    try:
        runner.main(train_work.run, train_flags.Config, None, [f"--workdir={workdir}", *flags])
    except SystemExit as end:
        return end.code
    return 0


def attempt(workdir, flags, kill):
    child = os.fork()
    if child == 0:
        code = 99
        try:
            out = os.open(f"{workdir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            code = work(workdir, flags, kill)
        finally:
            sys.stdout.flush()
            os._exit(code)
    if "delay" in kill:
        time.sleep(kill["delay"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(workdir, kills, *flags):
    workdir = str(pathlib.Path(workdir).absolute())
    print(json.dumps([attempt(workdir, flags, kill) for kill in [*json.loads(kills), {}]]))


if __name__ == "__main__":
    main(*sys.argv[1:])
