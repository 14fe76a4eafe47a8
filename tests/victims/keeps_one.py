"""A connection that is kept. Server: says back what comes. Client: for each line on standard input as many MiB both ways at once over the
same connection, and what came back is what went; `new` does the same over a new one, `end` ends both directions in order."""
import socket
import sys
import threading

MIB = 1 << 20
PORT = 7000


def block(number):
    return number.to_bytes(4, "big") * (MIB // 4)


def echo(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def serve():
    server = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    print("Serving", flush=True)
    while True:
        threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()


def exchange(connection, first, count):
    def send():
        for number in range(first, first + count):
            connection.sendall(block(number))

    sends = threading.Thread(target=send)
    sends.start()
    for number in range(first, first + count):
        got = bytearray()
        while len(got) < MIB:
            data = connection.recv(MIB - len(got))
            if not data:
                raise EOFError
            got += data
        if got != block(number):
            raise ValueError(number)
    sends.join()


def visit(name):
    connection, done = socket.create_connection((name, PORT)), 0
    print("connected", flush=True)
    for line in sys.stdin:
        try:
            if line.strip() == "new":
                with socket.create_connection((name, PORT)) as another:
                    exchange(another, 0, 1)
            elif line.strip() == "end":
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
            else:
                exchange(connection, done, int(line))
                done += int(line)
            print("well", flush=True)
        except (OSError, EOFError, ValueError) as error:
            print(repr(error), flush=True)


visit(sys.argv[1]) if len(sys.argv) > 1 else serve()
