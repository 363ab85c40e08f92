"""What the shell does and the library never: set jax.config, turn errors into one sentence and an exit code.

Used by the command gmm-jax and by experiments: float64 on CPU, and JAX's compilation cache in the user's cache folder.
"""

import errno
import gc
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

# docs/exit-codes.md has the table. Python itself ends with 1, and a traceback, where the program is wrong
EXIT_OK, EXIT_USAGE, EXIT_UNTRUSTED, EXIT_UNREADABLE, EXIT_INTERRUPTED, EXIT_UNREAD = 0, 2, 3, 4, 130, 141


def configure_jax(n_devices: int | None = None) -> None:
    """float64 on CPU (JAX_PLATFORMS in the environment wins), and compiled programs kept for the next start.

    n_devices: into so many the CPU is divided, for programs that ask for more than one; not ours.
    """
    import jax

    gc.set_threshold(50_000, 20, 50)  # tracing makes objects by the million, and few of them are rubbish
    if n_devices is not None:
        jax.config.update("jax_num_cpu_devices", n_devices)
    jax.config.update("jax_enable_x64", True)
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if jax.config.jax_enable_compilation_cache and (folder := jax.config.jax_compilation_cache_dir):
        from . import stored

        stored.keep_in(Path(folder) / "traced")


def compile_quickly() -> None:
    """For a process whose programs run for less time than they are compiled: LLVM does not optimise them.

    With a simpler way of fusing it takes a tenth of the time, for programs up to five times slower. To be called before
    JAX computes anything; a user's XLA_FLAGS win.
    """
    from .mixture.cores import LEAST

    flags = [LEAST]
    if version("jax").startswith("0.10."):  # XLA ends the process where it does not know a flag
        flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ.setdefault("XLA_FLAGS", " ".join(flags))


def cache_folder() -> Path:
    """Where compiled programs are kept: the user's cache folder, as each system names it."""
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", str(Path.home())))
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "gmm_jax" / "compiled"


def guarded(work: Callable[[], int | None]) -> int:
    """The exit code of `work`; what a user can mend is one sentence on stderr, without a traceback."""
    from .bench.store import UnreadableResult

    try:
        code = work() or EXIT_OK
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return unread()
    except KeyboardInterrupt:
        print("interrupted; what was finished and written to disk is kept.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except UnreadableResult as error:
        print(f"gmm-jax: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    except (ValueError, OSError) as error:
        if os.environ.get("GMM_JAX_TRACEBACK"):
            raise
        print(f"gmm-jax: {_sentence(error)}", file=sys.stderr)
        return EXIT_USAGE


def unread() -> int:
    """The exit code where nobody reads the output any more, as after `| head`; what would be printed is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_UNREAD


def experiment(main: Callable[..., int]) -> None:
    """Run an experiment from its command line and leave with its exit code: --help comes from main's signature."""
    import tyro

    configure_jax()
    sys.exit(guarded(lambda: tyro.cli(main, config=(tyro.conf.FlagCreatePairsOff,))))


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        full = "; make room and run the same command again, what is finished is kept"
        return f"{error.filename}: {error.strerror}{full if error.errno == errno.ENOSPC else ''}."
    return str(error)
