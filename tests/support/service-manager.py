"""What a service manager does for one service, made with nothing of the product.

    python3 service-manager.py SETTINGS COMMAND...

SETTINGS is JSON: {"notify": "/path" or "@name", "watchdogUsec": 0, "sockets": [{"name", "path" | "port" | "file"}],
"env": {...}, "listenPid": 0}. Opens the sockets, starts the command with them from descriptor 3 on, and prints a line of
JSON for each datagram that comes ({"ms", "text"}), then {"exit": code}. SIGTERM is handed on.
"""
import json
import os
import signal
import socket
import sys
import time


def opened(place):
    if "path" in place:
        server = socket.socket(socket.AF_UNIX, place.get("type", socket.SOCK_STREAM))
        server.bind(place["path"])
    elif "port" in place:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind(("127.0.0.1", place["port"]))
    else:
        return os.open(place["file"], os.O_RDONLY)
    if place.get("type", socket.SOCK_STREAM) == socket.SOCK_STREAM:
        server.listen(8)
    if "port" in place:
        print(json.dumps({"port": server.getsockname()[1]}), flush=True)
    return server.detach()


def start(settings, command):
    sockets = settings.get("sockets", [])
    descriptors = [opened(place) for place in sockets]
    child = os.fork()
    if child != 0:
        return child
    # Out of the way first: one may stand where another belongs.
    moved = [os.dup2(fd, 100 + i, inheritable=False) for i, fd in enumerate(descriptors)]
    for i, fd in enumerate(moved):
        os.dup2(fd, 3 + i, inheritable=True)
    env = dict(os.environ, **settings.get("env", {}))
    env["NOTIFY_SOCKET"] = settings["notify"]
    if settings.get("watchdogUsec"):
        env["WATCHDOG_USEC"] = str(settings["watchdogUsec"])
    if sockets:
        env["LISTEN_PID"] = str(settings.get("listenPid") or os.getpid())
        env["LISTEN_FDS"] = str(len(sockets))
        env["LISTEN_FDNAMES"] = ":".join(place.get("name", "") for place in sockets)
    os.execvpe(command[0], command, env)


def main():
    settings = json.loads(sys.argv[1])
    name = settings["notify"]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("\0" + name[1:] if name.startswith("@") else name)
    listener.settimeout(0.05)
    child = start(settings, sys.argv[2:])
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    begin = time.monotonic()
    while True:
        # Looked at first: what the child said before its end is still read.
        ended, status = os.waitpid(child, os.WNOHANG)
        while True:
            try:
                text = listener.recv(4096).decode()
            except socket.timeout:
                break
            print(json.dumps({"ms": (time.monotonic() - begin) * 1000, "text": text}), flush=True)
        if ended:
            print(json.dumps({"exit": os.waitstatus_to_exitcode(status)}), flush=True)
            return


main()
