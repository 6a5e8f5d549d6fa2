"""Jobs without processes, which have their own tests and take seconds to start."""

from experiments.workers import Outcome


def run_all(jobs, work, *, workers, devices):
    """As `experiments.workers.run_all`, one job after the other in this process."""
    del workers, devices
    for name, job in jobs.items():
        try:
            work(job)
        except Exception as error:
            yield Outcome(name, (str(error), ""))
        else:
            yield Outcome(name, None)
