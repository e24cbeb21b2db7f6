"""Build the native parts: the extension `jailrun.kernel._execute` and the jail's init.

Everything else about the package is in pyproject.toml.  Both parts are optional at build time:
without the extension programs run through ctypes, more slowly, and without the init only
`--init` is missing.  So a host without a compiler gets a warning here, not a failure; bin/setup,
which installs the compiler first, checks the result itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

KERNEL = Path("jailrun/kernel")
EXTENSION_SOURCES = [KERNEL / "_execute.c", KERNEL / "_interpret.c"]
INIT_SOURCE = KERNEL / "init.c"

# The init is one static file without libc, so that it runs in any root file system.
INIT_FLAGS = [
    "-std=gnu11",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-Os",
    "-fno-stack-protector",
    "-fno-pie",
    "-no-pie",
    "-fno-asynchronous-unwind-tables",
    "-Wall",
    "-Wextra",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-s",
]

# Limited API of 3.11: one binary for that and all later versions of CPython.
EXTENSIONS = [
    Extension(
        "jailrun.kernel._execute",
        sources=[os.fspath(source) for source in EXTENSION_SOURCES],
        depends=[os.fspath(header) for header in sorted(KERNEL.glob("*.h"))],
        define_macros=[("Py_LIMITED_API", "0x030b0000")],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
        py_limited_api=True,
    )
]


class BuildNative(build_ext):
    """Build the extension and the init; say in words what could not be built."""

    def run(self) -> None:
        """Build both parts into the build folder, or into the tree with --inplace."""
        self.extensions = [part for part in self.extensions if Path(part.sources[0]).exists()]
        if self.extensions:
            try:
                super().run()
            except (CCompilerError, ExecError, PlatformError, OSError) as error:
                warn(f"the extension jailrun.kernel._execute is not built: {error}")
        if INIT_SOURCE.exists():
            self.build_init()

    def build_init(self) -> None:
        """Compile the init to one static program beside the kernel package."""
        compiler = (os.environ.get("CC") or "gcc").split()
        if which(compiler[0]) is None:
            warn(f"the jail's init is not built: there is no compiler named {compiler[0]}")
            return
        folder = KERNEL if self.inplace else Path(self.build_lib) / KERNEL
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "init.new"
        command = [*compiler, *INIT_FLAGS, "-o", os.fspath(unfinished), os.fspath(INIT_SOURCE)]
        if subprocess.run(command, check=False).returncode:
            unfinished.unlink(missing_ok=True)
            warn("the jail's init is not built: the compiler refused it")
            return
        unfinished.rename(folder / "init")


def warn(message: str) -> None:
    """Print one line that setuptools' own log levels do not hide."""
    print(f"jailrun: warning: {message}", file=sys.stderr)


setup(
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
