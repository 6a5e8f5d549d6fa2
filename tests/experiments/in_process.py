"""Runs jobs without processes, because processes have their own tests and take seconds to start."""

import traceback

from experiments.workers import Outcome


def run_all(jobs, work, *, workers, devices):
    """Like `experiments.workers.run_all`, but one job after another in this process."""
    del workers, devices
    for name, job in jobs.items():
        try:
            work(job)
        except Exception as error:
            yield Outcome(name, (str(error), traceback.format_exc()))
        else:
            yield Outcome(name, None)
