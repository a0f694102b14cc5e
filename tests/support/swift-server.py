"""
OpenStack Swift with its S3 interface, whole, in one process: proxy, account, container and object server,
each on a port of 127.0.0.1 that was free. Prints the proxy's port when it serves.

    /usr/bin/python3 swift-server.py FOLDER ACCESS_KEY SECRET_KEY

FOLDER gets rings, configuration and objects; its file system has to have extended attributes. One copy of each
object, on one device: what is tested is the interface. The services are Swift's own, unchanged.
"""
import logging
import os
import sys

import eventlet
import eventlet.wsgi

FOLDER, ACCESS, SECRET = sys.argv[1:]
with open(os.path.join(FOLDER, "swift.conf"), "w") as file:
    file.write("[swift-hash]\nswift_hash_path_suffix = test\nswift_hash_path_prefix = test\n")

eventlet.patcher.monkey_patch(all=False, socket=True, select=True, thread=True)

from swift.common import utils  # noqa: E402 (after the patching)

# Before the other modules are imported: they read swift.conf in passing.
utils.set_swift_dir(FOLDER)

from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # noqa: E402

DEVICE = "disk"
PARTITION_POWER = 2

STORAGE_CONFIG = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
log_level = ERROR
workers = 0
recon_cache_path = {folder}/recon

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY_CONFIG = """
[DEFAULT]
swift_dir = {folder}
log_level = ERROR
workers = 0

[pipeline:main]
pipeline = catch_errors s3api tempauth copy slo dlo proxy-server

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:s3api]
use = egg:swift#s3api
location = {region}
auth_pipeline_check = false

[filter:tempauth]
use = egg:swift#tempauth
user_{access} = {secret} .admin

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo

[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
"""


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def make_ring(folder, kind, port):
    name = "object" if kind == "object" else kind
    builder = RingBuilder(PARTITION_POWER, 1, 1)
    builder.add_dev({
        "id": 0, "region": 1, "zone": 1, "weight": 1, "device": DEVICE,
        "ip": "127.0.0.1", "port": port,
        "replication_ip": "127.0.0.1", "replication_port": port,
    })
    builder.rebalance()
    builder.get_ring().save(os.path.join(folder, name + ".ring.gz"))


class Cache:
    """What the services otherwise keep in memcached. Nothing expires: the tests are short."""

    def __init__(self):
        self.values = {}

    def get(self, key, **_):
        return self.values.get(key)

    def set(self, key, value, **_):
        self.values[key] = value

    def delete(self, key, **_):
        self.values.pop(key, None)

    def incr(self, key, delta=1, **_):
        self.values[key] = self.values.get(key, 0) + delta
        return self.values[key]

    def decr(self, key, delta=1, **_):
        return self.incr(key, -delta)

    def set_multi(self, mapping, *_, **__):
        self.values.update(mapping)

    def get_multi(self, keys, *_, **__):
        return [self.values.get(key) for key in keys]


def with_cache(app):
    cache = Cache()

    def answer(environment, start_response):
        environment["swift.cache"] = cache
        return app(environment, start_response)

    return answer


def load(config):
    return loadapp(config, global_conf={"log_name": "swift"})


def serve(listener, app):
    quiet = logging.getLogger("swift-wsgi")
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    eventlet.wsgi.server(
        listener, app, quiet, custom_pool=eventlet.GreenPool(256),
        protocol=SwiftHttpProtocol, log_output=False, capitalize_response_headers=False)


def main(folder, access, secret):
    os.makedirs(os.path.join(folder, "devices", DEVICE))
    os.makedirs(os.path.join(folder, "recon"))
    for kind in ("account", "container", "object"):
        listener = eventlet.listen(("127.0.0.1", 0))
        make_ring(folder, kind, listener.getsockname()[1])
        config = write(os.path.join(folder, kind + ".conf"),
                       STORAGE_CONFIG.format(folder=folder, kind=kind))
        eventlet.spawn(serve, listener, load(config))
    proxy = eventlet.listen(("127.0.0.1", 0))
    user = access.replace(":", "_")
    config = write(os.path.join(folder, "proxy.conf"), PROXY_CONFIG.format(
        folder=folder, access=user, secret=secret, region="us-east-1"))
    print(proxy.getsockname()[1], flush=True)
    serve(proxy, with_cache(load(config)))


main(FOLDER, ACCESS, SECRET)
