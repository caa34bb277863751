"""
On a process's PYTHONPATH: its leases, and what it tells of them, are many times as fast.

With QUICK_LEASES in the environment a holder that is silent for so many seconds is taken for dead:
few, but more than a machine with too much to do may keep a living one waiting. With CLOCK_OFF in
the environment its wall clock is wrong by so many seconds.
"""

import os
import time

if "CLOCK_OFF" in os.environ:
    _off, _right = float(os.environ["CLOCK_OFF"]), time.time
    time.time = lambda: _right() + _off

if "QUICK_LEASES" in os.environ:
    from cachepod.cli import options, progress
    from cachepod.snapshot import lease, turn

    lease.BEAT, lease.STALE = 0.2, float(os.environ["QUICK_LEASES"])
    turn.PAUSE = (0.1, 0.3)
    progress._Lines.interval = 0.2
    options._ANSWERS = 5.0
