"""Control channel of the emulated host: runs commands in dom0 for the lab.

Frames, both ways, over the virtio-serial port named lab.control; all numbers are big-endian:

    +----------------+----------------+--------+---------------------+
    | length  u32    | channel  u32   | type u8| payload[length]     |
    +----------------+----------------+--------+---------------------+

The peer is the lab on the developer's own machine, so it is trusted; the framing and the types are the
twin of scripts/lab/channel.ts, which documents each payload.
"""

import errno
import fcntl
import json
import os
import pty
import selectors
import signal
import struct
import subprocess
import termios
import time

HEADER = struct.Struct(">IIB")
OPEN, DATA, EOF, SIGNAL, RESIZE, PING = 1, 2, 3, 4, 5, 6
HELLO, STDOUT, STDERR, EXIT, PONG = 16, 17, 18, 19, 20
CHUNK = 64 * 1024


def find_port(name):
    """Path of the character device of a virtio-serial port; udev may not have named it yet."""
    base = "/sys/class/virtio-ports"
    while True:
        for port in os.listdir(base) if os.path.isdir(base) else []:
            try:
                with open(f"{base}/{port}/name") as file:
                    if file.read().strip() == name:
                        return f"/dev/{port}"
            except FileNotFoundError:
                pass
        time.sleep(0.1)


def window(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Session:
    """One command: its process, and the pipes (or the terminal) between it and the channel."""

    def __init__(self, server, channel, request):
        self.server, self.channel = server, channel
        self.outputs = {}
        self.pending = bytearray()
        self.stdin_closing = False
        terminal = request.get("pty")
        environment = dict(os.environ, **request.get("env", {}))
        options = {"cwd": request.get("cwd", "/root"), "env": environment, "start_new_session": True}
        if terminal:
            master, slave = pty.openpty()
            window(slave, terminal["rows"], terminal["columns"])
            self.process = subprocess.Popen(
                request["argv"], stdin=slave, stdout=slave, stderr=slave,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **options)
            os.close(slave)
            self.stdin = master
            self.outputs[master] = STDOUT
        else:
            self.process = subprocess.Popen(
                request["argv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                bufsize=0, **options)
            self.stdin = os.dup(self.process.stdin.fileno())
            self.process.stdin.close()
            for stream, kind in ((self.process.stdout, STDOUT), (self.process.stderr, STDERR)):
                self.outputs[os.dup(stream.fileno())] = kind
                stream.close()
        self.terminal = bool(terminal)
        for fd in {self.stdin, *self.outputs}:
            os.set_blocking(fd, False)
        for fd in self.outputs:
            server.watch(fd, selectors.EVENT_READ, self)

    def feed(self, data):
        self.pending += data
        self.flush()

    def close_stdin(self):
        self.stdin_closing = True
        self.flush()

    def flush(self):
        if self.stdin is None:
            return
        try:
            while self.pending:
                del self.pending[: os.write(self.stdin, self.pending[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self.pending.clear()  # the command no longer reads; its exit status tells the rest
        if self.terminal:
            self.server.watch(self.stdin, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.pending else 0), self)
            return
        self.server.watch(self.stdin, selectors.EVENT_WRITE if self.pending else 0, self)
        if self.stdin_closing and not self.pending:
            os.close(self.stdin)
            self.stdin = None

    def ready(self, fd, events):
        if events & selectors.EVENT_WRITE:
            self.flush()
        if events & selectors.EVENT_READ:
            self.read(fd)

    def read(self, fd):
        """Sends on what is there. False when nothing more can come now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: a terminal's last writer is gone
                raise
            data = b""
        if data:
            self.server.send(self.channel, self.outputs[fd], data)
            return True
        self.drop(fd)
        return False

    def drop(self, fd):
        self.server.watch(fd, 0, self)
        self.outputs.pop(fd, None)
        if fd != self.stdin:
            os.close(fd)

    def finished(self):
        """True once the process ended; its last output is sent first.

        Pipes that a daemon left behind by the command still holds open are not waited for: `xl create`
        leaves one.
        """
        status = self.process.poll()
        if status is None:
            return False
        for fd in list(self.outputs):
            while self.read(fd):
                pass
        self.dispose()
        self.server.send(self.channel, EXIT, json.dumps(
            {"signal": -status} if status < 0 else {"code": status}).encode())
        return True

    def kill(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def dispose(self):
        for fd in {*self.outputs, self.stdin} - {None}:
            self.server.watch(fd, 0, self)
            os.close(fd)
        self.outputs, self.stdin = {}, None


class Server:
    def __init__(self, port):
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.sessions = {}
        self.buffer = bytearray()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wake = wake_read
        self.selector.register(wake_read, selectors.EVENT_READ, None)
        self.selector.register(port, selectors.EVENT_READ, None)

    def watch(self, fd, events, session):
        known = fd in self.selector.get_map()
        if events and known:
            self.selector.modify(fd, events, session)
        elif events:
            self.selector.register(fd, events, session)
        elif known:
            self.selector.unregister(fd)

    def send(self, channel, kind, payload=b""):
        data = memoryview(HEADER.pack(len(payload), channel, kind) + payload)
        while data:
            data = data[os.write(self.port, data):]

    def handle(self, channel, kind, payload):
        if kind == PING:
            self.send(channel, PONG, payload)
            return
        if kind == OPEN:
            try:
                self.sessions[channel] = Session(self, channel, json.loads(payload))
            except OSError as error:
                self.send(channel, EXIT, json.dumps({"error": str(error)}).encode())
            return
        session = self.sessions.get(channel)
        if session is None:
            return  # crossed with the command's exit
        if kind == DATA:
            session.feed(payload)
        elif kind == EOF:
            session.close_stdin()
        elif kind == SIGNAL:
            session.kill(payload[0])
        elif kind == RESIZE and session.terminal and session.stdin is not None:
            window(session.stdin, *struct.unpack(">HH", payload))

    def receive(self):
        data = os.read(self.port, CHUNK)
        if not data:
            raise EOFError
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            length, channel, kind = HEADER.unpack_from(self.buffer)
            if len(self.buffer) < HEADER.size + length:
                break
            payload = bytes(self.buffer[HEADER.size: HEADER.size + length])
            del self.buffer[: HEADER.size + length]
            self.handle(channel, kind, payload)

    def run(self):
        self.send(0, HELLO, json.dumps({"uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}).encode())
        while True:
            for key, events in self.selector.select():
                if key.fd == self.port:
                    self.receive()
                elif key.fd == self.wake:
                    os.read(self.wake, CHUNK)
                    for channel in [c for c, s in self.sessions.items() if s.finished()]:
                        del self.sessions[channel]
                elif key.fd in self.selector.get_map():  # not closed by an event handled before it
                    key.data.ready(key.fd, events)


def main():
    port = os.open(find_port("lab.control"), os.O_RDWR | os.O_CLOEXEC)
    server = Server(port)
    try:
        server.run()
    except EOFError:
        # The lab went away (or a snapshot was restored under a new one): its commands end with it.
        for session in server.sessions.values():
            session.kill(signal.SIGKILL)


main()
