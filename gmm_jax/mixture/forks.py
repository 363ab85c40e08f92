"""A forked process has none of JAX's threads: what would wait for them for ever raises an error instead."""

import os
import sys

_state = {"jax was running": False, "forked": False}


def check_process() -> None:
    """A RuntimeError in a process that was forked from one in which JAX had begun to compute."""
    if _state["forked"]:
        raise RuntimeError(
            "this process was forked from one in which JAX is running, whose threads it does not have, so that it "
            "would wait for ever: start workers by multiprocessing.get_context('spawn'), or by joblib's default, loky."
        )


def _before():
    bridge = sys.modules.get("jax._src.xla_bridge")
    _state["jax was running"] = bool(getattr(bridge, "backends_are_initialized", lambda: False)())


def _after_in_child():
    _state["forked"] = _state["jax was running"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after_in_child)
