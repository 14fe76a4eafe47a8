"""What leaves a service that is not kept in: `listen FILE` writes down what arrives outside, `probe` tries all of it."""

import selectors
import socket
import sys

# The name server of this computer, and who looks names up for others at a socket.
OUTSIDE = ("127.7.7.7", 53)
BESIDE = "/run/beside.sock"


def listen(path):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(OUTSIDE)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(BESIDE)
    unix.listen()
    all = {"udp": udp, "tcp": socket.create_server(OUTSIDE), "unix": unix}
    arrives = selectors.DefaultSelector()
    for name, one in all.items():
        arrives.register(one, selectors.EVENT_READ, name)
    with open(path, "a") as heard:
        while True:
            for key, _ in arrives.select():
                what = key.data
                if what == "udp":
                    asked = udp.recv(1000)
                    what = "name" if b"\x04leak\x04test" in asked else what
                else:
                    key.fileobj.accept()[0].close()
                print(what, file=heard, flush=True)


def probe():
    def name():
        socket.getaddrinfo("leak.test", 80)

    def udp():
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"leak", OUTSIDE)

    def tcp():
        socket.create_connection(OUTSIDE, 5).close()

    def unix():
        with socket.socket(socket.AF_UNIX) as beside:
            beside.connect(BESIDE)

    for attempt in name, udp, tcp, unix:
        try:
            attempt()
        except OSError as error:
            print(attempt.__name__, error, flush=True)


listen(sys.argv[2]) if sys.argv[1] == "listen" else probe()
