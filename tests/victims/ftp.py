"""As much of an FTP server as it takes to hand one file over in each of the four ways."""
import socket
import threading

CONTENT = b"here\n"


class Visit:
    def __init__(self, control):
        self.control, self.listener, self.to = control, None, None

    def say(self, text):
        self.control.sendall(text.encode() + b"\r\n")

    def passive(self, address):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        return self.listener.getsockname()[1]

    def data(self):
        if self.listener:
            return self.listener.accept()[0]
        return socket.create_connection(self.to, 60)

    def pasv(self, _):
        own = self.control.getsockname()[0].removeprefix("::ffff:")
        port = self.passive(own)
        # As vsftpd has it where there is no IPv4 address.
        own = "0.0.0.0" if ":" in own else own
        self.say(f"227 ({own.replace('.', ',')},{port >> 8},{port & 255})")

    def epsv(self, _):
        own = self.control.getsockname()[0].removeprefix("::ffff:")
        self.say(f"229 (|||{self.passive(own)}|)")

    def port(self, said):
        numbers = said.split(",")
        self.to = ".".join(numbers[:4]), int(numbers[4]) * 256 + int(numbers[5])
        self.say("200 so be it")

    def eprt(self, said):
        _, _, address, port, _ = said.split("|")
        self.to = address, int(port)
        self.say("200 so be it")

    def retr(self, _):
        self.say("150 here it comes")
        try:
            with self.data() as data:
                data.sendall(CONTENT)
                # What is said on the other connection may arrive before this one does (docs/semantics.md), which curl takes ill.
                data.shutdown(socket.SHUT_WR)
                data.recv(1)
            self.say("226 that was it")
        except OSError as error:
            self.say(f"425 {error}")

    def run(self):
        self.say("220 hello")
        for line in self.control.makefile():
            word, _, said = line.strip().partition(" ")
            simple = {"USER": "230 welcome", "PWD": '257 "/"', "TYPE": "200 so be it", "SIZE": f"213 {len(CONTENT)}", "QUIT": "221 bye"}
            if word in simple:
                self.say(simple[word])
            elif word in ("PASV", "EPSV", "PORT", "EPRT", "RETR"):
                getattr(self, word.lower())(said)
            else:
                self.say("500 never heard of it")


def serve(server):
    while True:
        control, _ = server.accept()
        threading.Thread(target=Visit(control).run, daemon=True).start()


both = socket.create_server(("::", 21), family=socket.AF_INET6, dualstack_ipv6=True)
ipv4 = socket.create_server(("0.0.0.0", 2121))
print("listening", flush=True)
threading.Thread(target=serve, args=(ipv4,), daemon=True).start()
serve(both)
