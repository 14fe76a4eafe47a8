"""A service as systemd has them: says that it is ready, goes on saying that it lives, takes what is passed, ends when told."""
import os
import signal
import socket
import sys
import time

heard = open(sys.argv[1], "a", buffering=1)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])


def end(*_):
    heard.write("terminated\n")
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
count = int(os.environ.get("LISTEN_FDS", 0))
mine = {name: os.environ.get(name) in (None, str(os.getpid())) for name in ("LISTEN_PID", "WATCHDOG_PID")}
passed = [socket.socket(fileno=3 + n) for n in range(count)]
servers = passed or [socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)]
families = ",".join(server.family.name for server in passed) or "none"
heard.write(f"started {os.getpid()} passed {families} mine {all(mine.values())} watchdog {os.environ.get('WATCHDOG_USEC')}\n")
for server in servers:
    server.settimeout(0.2)
# Not earlier: whoever waits for the service must find what it has said.
notify.send(b"READY=1")
while True:
    if not os.path.exists(sys.argv[1] + ".silent"):
        notify.send(b"WATCHDOG=1")
    for server in servers:
        try:
            client, _ = server.accept()
        except TimeoutError:
            continue
        client.sendall(b"served\n")
        client.close()
    time.sleep(0.05)
