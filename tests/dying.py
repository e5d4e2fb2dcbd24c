"""Functions that kill their process at a chosen call, for tests of what a kill leaves behind."""
import os, signal


def dying_after(calls):
    "Give a wrapper; all functions wrapped with it share `calls` calls, and the next call kills the process instead."
    left = calls
    def wrap(real):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0: os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    return wrap
