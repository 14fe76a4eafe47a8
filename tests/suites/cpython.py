"""CPython's own suite, as Debian ships it, with Debian's python3."""

from pathlib import Path

from part import Outcomes, Part

# Modules that have to do with sockets, the longest first.
MODULES = """
    test_socket test_asyncio.test_events test_asyncio.test_ssl test_asyncio.test_sslproto test_asyncio.test_subprocess
    test_asyncio.test_streams test_asyncio.test_sock_lowlevel test_asyncio.test_sendfile test_asyncio.test_server
    test_asyncio.test_base_events test_asyncio.test_selector_events test_asyncio.test_unix_events
    test_asyncio.test_buffered_proto test_asyncio.test_transports test_asyncio.test_protocols test_asyncio.test_tasks
    test_asyncio.test_runners test_asyncio.test_threads test_asyncio.test_waitfor
    test_httplib test_ssl test_urllib2_localnet test_ftplib test_smtplib test_poplib test_imaplib test_telnetlib
    test_socketserver test_selectors test_select test_poll test_epoll test_asyncore test_asynchat test_xmlrpc
    test_wsgiref test_httpservers test_nntplib test_smtpd test_docxmlrpc test_robotparser test_urllib test_urllib2
    test_multiprocessing_fork test_multiprocessing_forkserver test_multiprocessing_spawn test_logging
""".split()

# Those that would notice a hook on exec, spawn, signals or descriptors.
OTHERS = "test_eintr test_subprocess test_signal test_posix test_os test_fcntl".split()

# What CI runs: each kind of socket call, server and client once, within minutes.
CORE = """
    test_socket test_asyncio.test_streams test_asyncio.test_sock_lowlevel test_asyncio.test_sendfile
    test_asyncio.test_server test_httplib test_urllib2_localnet test_ftplib test_smtplib test_telnetlib
    test_socketserver test_selectors test_select test_poll test_epoll test_asyncore test_asynchat test_wsgiref
    test_httpservers test_asyncio.test_events test_asyncio.test_ssl test_ssl test_subprocess test_fcntl
""".split()

# No TCP, and each of them hangs where the machine is virtual but nobody answers from the host.
LEFT_OUT = ["*VSOCK*"]

RUNNER = Path(__file__).with_name("cpython_runner.py")


class Module(Part):
    """One module of the suite."""

    def __init__(self, module):
        self.module = module
        self.name = f"cpython/{module}"
        self.core = module in CORE

    def command(self, notes, only, but, never):
        return ["/usr/bin/python3", "-P", str(RUNNER), str(notes), self.module,
                "--only", *only, "--but", *but, "--never", *LEFT_OUT, *never]

    def read(self, notes, output):
        outcomes = Outcomes()
        for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []:
            word, test, why = line.split("\t", 2)
            if word == "start":
                outcomes.open = test
            elif word == "end":
                outcomes.ended, outcomes.open = True, ""
            else:
                outcomes.note(test, word, why)
        if outcomes.open in outcomes.tests:
            outcomes.open = ""
        return outcomes


def parts(cache, say):
    """All of them; nothing is to be built."""
    return [Module(module) for module in MODULES + OTHERS]
