"""A server of the old kind: leaves its number in a file, and itself in the background. It ends at SIGTERM, and takes the file away."""
import os
import signal
import socket
import sys

ready, tell = os.pipe()
if os.fork():
    os.close(tell)
    sys.exit(0 if os.read(ready, 1) else 1)
os.setsid()
server = socket.create_server(("::", 0), family=socket.AF_INET6)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with open(sys.argv[1], "w") as file:
    print(os.getpid(), file=file)
os.write(tell, b"+")
for number in (tell, ready):
    os.close(number)
signal.sigwait([signal.SIGTERM])
os.unlink(sys.argv[1])
