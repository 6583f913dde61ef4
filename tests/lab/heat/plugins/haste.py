"""Heat's engine looks every second whether a resource is ready; here it looks five times a second, as the tests wait for nothing else."""

import time

from heat.engine import scheduler


def _sleep(self, wait_time):
    if scheduler.ENABLE_SLEEP and wait_time is not None:
        time.sleep(min(wait_time, 0.2))


scheduler.TaskRunner._sleep = _sleep


def resource_mapping():
    return {}
