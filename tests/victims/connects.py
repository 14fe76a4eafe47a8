"""Connects to an address every half second, as one program; says for each attempt how long it took, or why it failed."""
import os
import socket
import sys
import threading
import time

HOST, PORT, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])


def attempt():
    begin = time.monotonic()
    try:
        # No limit of its own: the kernel's.
        with socket.create_connection((HOST, PORT)):
            pass
        line = f"ok {time.monotonic() - begin:.1f}"
    except OSError as error:
        line = f"failed {time.monotonic() - begin:.1f} {error}"
    # One write for each: lines of several threads must not mix.
    os.write(1, f"{line}\n".encode())


threads = []
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    threads.append(threading.Thread(target=attempt))
    threads[-1].start()
    time.sleep(0.5)
for thread in threads:
    thread.join()
