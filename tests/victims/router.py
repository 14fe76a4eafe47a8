"""Plays the router of a home as some are: router.py MODE ADDRESS. Says what it is asked, line by line.

silent     listens and never answers
rubbish    answers with noise, and its description has no end
elsewhere  NAT-PMP: forwards port 40000 instead of the one that is asked for
inner      NAT-PMP: its own address outside is one of another router's network
permanent  UPnP: forwards for ever or not at all
"""
import http.server
import os
import re
import socket
import struct
import sys
import threading

MODE, ADDRESS = sys.argv[1:]
OUTSIDE = {"inner": "10.9.9.9"}.get(MODE, "5.100.0.1")
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>
<serviceType>{SERVICE}</serviceType><controlURL>/control</controlURL><SCPDURL>/schema</SCPDURL>
</service></serviceList></device></root>"""
ADD = ["NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient", "NewEnabled",
       "NewPortMappingDescription", "NewLeaseDuration"]


def schema(action, arguments):
    each = "".join(f"<argument><name>{name}</name><direction>in</direction></argument>" for name in arguments)
    return f"<action><name>{action}</name><argumentList>{each}</argumentList></action>"


SCHEMA = ('<?xml version="1.0"?><scpd><actionList>' + schema("AddPortMapping", ADD)
          + schema("DeletePortMapping", ADD[:3]) + schema("GetExternalIPAddress", []) + "</actionList></scpd>")


def say(*words):
    print(*words, flush=True)


def listen(port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ADDRESS, port))
    return server


def mapping(question):
    """The answer to one question of NAT-PMP; PCP is not spoken."""
    if question[0] != 0:
        return struct.pack(">BBHI", 0, 128, 1, 1)
    if question[1] == 0:
        return struct.pack(">BBHI", 0, 128, 0, 1) + socket.inet_aton(OUTSIDE)
    inner, lasts = struct.unpack(">HxxI", question[4:12])
    say("forgets" if lasts == 0 else "forwards", inner)
    outer = 0 if lasts == 0 else 40000
    return struct.pack(">BBHIHHI", 0, 130, 0, 1, inner, outer, lasts)


def answer_mapping(server):
    while True:
        question, client = server.recvfrom(100)
        if MODE != "silent":
            server.sendto(os.urandom(60) if MODE == "rubbish" else mapping(question), client)
            say("answered")


def answer_search(server):
    while True:
        _, client = server.recvfrom(2000)
        if MODE != "silent":
            server.sendto(f"HTTP/1.1 200 OK\r\nLOCATION: http://{ADDRESS}:5000/root\r\n\r\n".encode(), client)


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if MODE == "rubbish":
            self.send_response(200)
            self.end_headers()
            sent = 0
            try:
                while True:
                    sent += self.wfile.write(b"<a>" * 10000)
            except OSError:
                return say("endless:", "cut" if sent < 50_000_000 else "swallowed")
        self.reply(200, SCHEMA if self.path == "/schema" else DESCRIPTION)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.headers["SOAPAction"].strip('"').split("#")[1]
        value = lambda name: re.search(f"<{name}>(.*?)</{name}>", body)[1]
        say("asked by", self.headers.get("User-Agent", "nobody"))
        status, inner = 200, f'<u:{action}Response xmlns:u="{SERVICE}">'
        if action == "GetExternalIPAddress":
            inner += f"<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>"
        inner += f"</u:{action}Response>"
        if action == "AddPortMapping":
            say("description", value("NewPortMappingDescription"))
            if value("NewLeaseDuration") != "0":
                status, inner = 500, ("<s:Fault><detail><UPnPError><errorCode>725</errorCode><errorDescription>"
                                      "OnlyPermanentLeasesSupported</errorDescription></UPnPError></detail></s:Fault>")
            else:
                say("forwards", value("NewExternalPort"), "for ever")
        if action == "DeletePortMapping":
            say("forgets", value("NewExternalPort"))
        envelope = '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        self.reply(status, f'<?xml version="1.0"?>{envelope}{inner}</s:Body></s:Envelope>')


if MODE != "permanent":
    threading.Thread(target=answer_mapping, args=[listen(5351)], daemon=True).start()
if MODE in ("silent", "rubbish", "permanent"):
    threading.Thread(target=answer_search, args=[listen(1900)], daemon=True).start()
web = http.server.ThreadingHTTPServer((ADDRESS, 5000), Answer)
web.daemon_threads = True
say("plays", MODE)
web.serve_forever()
