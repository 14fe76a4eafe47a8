"""What systemd does with a daemon whose unit has it keep descriptors: `manager.py FOLDER DAEMON…`. USR1: `systemctl restart`, TERM: `systemctl stop`;
it ends as the daemon does, with 99 if that left something for nobody."""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

FOLDER, DAEMON, UNIT = pathlib.Path(sys.argv[1]), sys.argv[2:], "phantomd.service"
JOB, kept = FOLDER / "job", []
(FOLDER / "systemctl").write_text(f"#!/bin/sh\ncat {JOB}\n")
(FOLDER / "systemctl").chmod(0o755)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(str(FOLDER / "notify"))
notify.setblocking(False)
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{FOLDER}:{os.environ['PATH']}",
    "NOTIFY_SOCKET": str(FOLDER / "notify"),
    "PHANTOM_UNIT": UNIT,
}
SIGNALS = {signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD}


def hear():
    while True:
        try:
            said, descriptors, _, _ = socket.recv_fds(notify, 4096, 8)
        except BlockingIOError:
            return
        lines = said.decode().split("\n")
        if "FDSTORE=1" in lines:
            assert "FDPOLL=0" in lines, "what is hung up would not be kept"
            kept.extend(descriptors)
            continue
        if "FDSTOREREMOVE=1" in lines:
            descriptors += kept
            kept.clear()
        # That of a barrier too.
        for descriptor in descriptors:
            os.close(descriptor)


def start():
    words, passed = ["sh", "-c", 'exec "$@"', "sh"], []
    if kept:
        words, passed = ["sh", "-c", 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"', "sh"], [3]

    def prepare():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if kept:
            os.dup2(kept[0], 3)

    return subprocess.Popen([*words, *DAEMON], env=ENVIRONMENT, pass_fds=passed, preexec_fn=prepare)


def end(daemon, kind):
    JOB.write_text(f"1 {UNIT} {kind} running\n")
    daemon.terminate()
    while daemon.poll() is None:
        hear()
        time.sleep(0.005)
    hear()
    JOB.unlink()


signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
daemon = start()
while daemon.poll() is None:
    told = signal.sigtimedwait(SIGNALS, 0.02)
    hear()
    if told and told.si_signo == signal.SIGUSR1:
        end(daemon, "restart")
        assert len(kept) == 1, "nothing was left"
        daemon = start()
    elif told and told.si_signo == signal.SIGTERM:
        end(daemon, "stop")
sys.exit(99 if kept else daemon.returncode)
