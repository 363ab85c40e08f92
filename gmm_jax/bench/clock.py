"""Seconds of tracing, of compiling (or loading compiled programs) and of running, apart.

JAX reports when it traces and compiles; nested reports are merged, and running is the rest of the wall time.
"""

import time

TRACING = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration")
COMPILING = ("backend_compile_duration",)


class Clock:
    """A context manager; `.seconds` afterwards, or `.so_far()` inside."""

    def __enter__(self):
        from jax import monitoring

        self._spans, self.seconds = {"trace": [], "compile": []}, None
        self._start = time.perf_counter()
        monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_):
        from jax import monitoring

        self.seconds = self.so_far()
        monitoring.unregister_event_duration_listener(self._hear)

    def so_far(self) -> dict[str, float]:
        """seconds, of which seconds_trace, seconds_compile (or load) and seconds_run; afterwards they stand still."""
        if self.seconds is not None:
            return self.seconds
        wall = time.perf_counter() - self._start
        compiling = _covered(self._spans["compile"])
        tracing = _covered(self._spans["trace"] + self._spans["compile"]) - compiling
        return {
            "seconds": wall,
            "seconds_trace": tracing,
            "seconds_compile": compiling,
            "seconds_run": max(wall - tracing - compiling, 0.0),
        }

    def _hear(self, event, duration, **_):
        end = time.perf_counter()
        if event.endswith(TRACING):
            self._spans["trace"].append((end - duration, end))
        elif event.endswith(COMPILING):
            self._spans["compile"].append((end - duration, end))


def _covered(spans):
    """Length of the union of intervals."""
    total, reach = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, reach), 0.0)
        reach = max(reach, end)
    return total
