"""The detached program that owns one child: `python -I -S runner.py`, with its order as JSON on stdin
({"folder": its run folder, "spec": see `runner_spec`}); without an order it ends.

It says one line on stdout, when its identity is durable or when it cannot begin, and then lives alone. This
file is only the door: a script is compiled at every start, its modules are not.
"""
# pathlib would cost every runner 5 ms and 1 MB.
# ruff: noqa: PTH100, PTH120

import os
import sys

# -I and -S leave only the standard library on the path. At the end, so that nothing here hides a standard
# module.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from pipeline.processes.runner_start import main

if __name__ == "__main__":
    main()
