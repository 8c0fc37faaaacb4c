"""Lets Ctrl-C end the command line without a traceback while its modules are still being imported.

``obframe`` imports this before anything else. It does nothing in any other program;
``obframe.cli.main`` takes Ctrl-C over.
"""

import os
import signal
import sys

_program = os.path.basename(sys.argv[0]) if sys.argv else ""
_is_ours = _program == "obframe" or sys.orig_argv[1:3] == ["-m", "obframe"]

# A handler that is not Python's own, such as that of a shell's background job, stays.
if _is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
