"""Builds the native data plane; everything else is in pyproject.toml.

LVOLFS_SANITIZE=address,undefined (or thread) builds it with those sanitizers.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# Libraries that single modules need; all others need none but libc and pthread.
LIBRARIES = {
    "checksum": ["isal", "xxhash"],
    "metadata": ["isal"],
    "lane": ["fuse3"],
    "nbd": ["nbd"],
}
INCLUDES = {"lane": ["/usr/include/fuse3"]}

sanitize = os.environ.get("LVOLFS_SANITIZE", "")
flags = [
    "-O2",
    "-g",
    "-Wall",
    "-Wno-unused-function",
    "-Wno-sign-compare",
    "-fno-strict-aliasing",
    "-D_FILE_OFFSET_BITS=64",
]
link = ["-pthread"]
if sanitize:
    flags += ["-O1", "-fno-omit-frame-pointer", f"-fsanitize={sanitize}"]
    link += [f"-fsanitize={sanitize}"]

extensions = [
    Extension(
        f"lvolfs._native.{source.stem}",
        [f"lvolfs/_native/{source.name}"],
        include_dirs=["_native", *INCLUDES.get(source.stem, [])],
        libraries=LIBRARIES.get(source.stem, []),
        depends=[str(header) for header in sorted(Path("_native").glob("*.h"))],
        extra_compile_args=flags,
        extra_link_args=link,
    )
    for source in sorted(Path("_native").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        nthreads=int(os.environ.get("LVOLFS_BUILD_JOBS", "2")),
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "warn.unreachable": True,
            "legacy_implicit_noexcept": False,
            "embedsignature": False,
        },
    ),
)
