"""APScheduler as a trigger: many cron schedules that post a DAG run each.

    apscheduler_trigger.py SCHEDULES DUE URL HOUR

DUE of the schedules are due every ten seconds, at the same second; the others in
HOUR (UTC), which is far from now. The jobs run in APScheduler's usual pool of ten
threads, each of which keeps its connection.
"""

import sys
import threading

import requests
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

kept = threading.local()


def trigger_dag(url, job):
    if not hasattr(kept, "session"):
        kept.session, kept.sent = requests.Session(), 0
    kept.sent += 1
    body = {
        "dag_run_id": f"apscheduler__{threading.get_ident()}_{kept.sent}",
        "logical_date": None,
        "conf": {"job": job},
    }
    kept.session.post(f"{url}/api/v2/dags/bench/dagRuns", json=body, timeout=30).raise_for_status()


def main():
    schedules, due, url, hour = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(10)},
        job_defaults={"coalesce": False, "misfire_grace_time": None, "max_instances": 10},
        timezone="UTC",
    )
    for job in range(schedules):
        if job < due:
            trigger = CronTrigger(second="*/10", timezone="UTC")
        else:
            trigger = CronTrigger(second=job % 60, minute=job // 60 % 60, hour=hour, timezone="UTC")
        scheduler.add_job(trigger_dag, trigger, args=[url, job])
    scheduler.start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
