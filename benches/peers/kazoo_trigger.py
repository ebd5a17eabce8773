"""A good kazoo script of the kind that people trigger Airflow with today.

Watches znodes, reads what changed, and posts a DAG run for it, on one kept
connection a thread. It remembers nothing: what happens while it is down, or
while it is busy and ZooKeeper merges changes, is lost.

    kazoo_trigger.py tree CONNECT PATH URL      data of every znode below PATH
    kazoo_trigger.py children CONNECT PATH URL  new children of PATH
"""

import queue
import sys
import threading

import requests
from kazoo.client import KazooClient

SENDERS = 4


def main():
    mode, connect, path, url = sys.argv[1:]
    client = KazooClient(hosts=connect)
    client.start()
    work = queue.SimpleQueue()

    def sender():
        session = requests.Session()
        while True:
            conf = work.get()
            body = {"dag_run_id": f"kazoo__{conf['zxid']:x}", "logical_date": None, "conf": conf}
            session.post(f"{url}/api/v2/dags/bench/dagRuns", json=body, timeout=30).raise_for_status()

    for _ in range(SENDERS):
        threading.Thread(target=sender, daemon=True).start()

    if mode == "tree":
        handled = {}
        lock = threading.Lock()

        def read(node):
            # Reading sets the next watch, so that no change is overlooked for good.
            _, stat = client.get(node, watch=lambda event: read(event.path))
            with lock:
                if handled.get(node) == stat.mzxid:
                    return
                handled[node] = stat.mzxid
            if ready.is_set():
                work.put({"path": node, "version": stat.version, "zxid": stat.mzxid})

        ready = threading.Event()
        for child in client.get_children(path):
            read(f"{path}/{child}")
        ready.set()
    else:
        known = set(client.get_children(path))

        @client.ChildrenWatch(path)
        def on_children(children):
            fresh = set(children) - known
            known.update(fresh)
            for child in sorted(fresh):
                work.put({"path": f"{path}/{child}", "version": 0, "zxid": hash(child) & 0xFFFFFFFFFFFF})

    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
