"""Takes a lock with kazoo, appends to a file while it holds it, and gives it back.

Arguments: host:port, path of the lock, file, another file whose appearance ends the holding, and
`pattern` to look at the znodes of others too (kazoo's `extra_lock_patterns`).
"""

import pathlib
import sys
import time

from kazoo.client import KazooClient

hosts, path, file, release, *pattern = sys.argv[1:]
client = KazooClient(hosts=hosts)
client.start()
lock = client.Lock(path, "kazoo", extra_lock_patterns=["-lock-"] if pattern else ())
with lock:
    with open(file, "a") as log:
        log.write("kazoo begins\n")
    while not pathlib.Path(release).exists():
        time.sleep(0.05)
    with open(file, "a") as log:
        log.write("kazoo ends\n")
client.stop()
client.close()
