"""The server that forks the jobs imports this module last, and nothing else does.

It leaves the terminal's session, so that Ctrl-C reaches the sweep alone, which passes it on. It ends with the sweep, so
that the jobs, which end with it, are asked to save themselves.
"""

import gc
import os

import vitexp.report.plot_curves
import vitexp.verb.resume  # noqa: F401
from vitexp.machine.rank import end_with_parent

os.setsid()
end_with_parent()
gc.freeze()  # so that no collection in a job touches, and thereby copies, what all share
