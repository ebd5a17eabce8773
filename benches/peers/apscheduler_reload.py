"""APScheduler going over to other jobs, in its store on SQLite.

    apscheduler_reload.py JOBS DATABASE

Prints JSON with the milliseconds that each edit took. As its documentation has it,
a program adds its jobs with an id and `replace_existing` when its definitions are
others. Nothing is checked, and nothing is kept of what was before.
"""

import json
import sys
import time

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger


def work(job):
    print(job)


def main():
    jobs, database = int(sys.argv[1]), sys.argv[2]
    scheduler = BackgroundScheduler(jobstores={"default": SQLAlchemyJobStore(url=database)}, timezone="UTC")

    def add(job, hour):
        trigger = CronTrigger(second=job % 60, minute=job // 60 % 60, hour=hour, day=1, month=1, timezone="UTC")
        scheduler.add_job(work, trigger, args=[job], id=str(job), replace_existing=True)

    for job in range(jobs):
        add(job, 0)
    took = {}

    def timed(name, change):
        start = time.perf_counter()
        change()
        took[name] = (time.perf_counter() - start) * 1000

    timed(f"{jobs} added", scheduler.start)
    timed("one edited", lambda: add(0, 1))
    timed("all edited", lambda: [add(job, 2) for job in range(jobs)])
    timed("all removed", lambda: [scheduler.remove_job(str(job)) for job in range(jobs)])
    print(json.dumps(took))


if __name__ == "__main__":
    main()
