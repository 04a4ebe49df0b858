"""Builds the compiled parts: ``tqdb/_core`` (the proxy's hot path), ``tqdb/load/_gen`` and ``tqdb/load/_null`` (the
load generator and the null backend).

``TQDB_DEBUG=1`` compiles with line tracing, checks of divisions and C assertions; ``make debug`` sets it.
``TQDB_VARIANT`` compiles for a purpose of its own, see ``VARIANTS``; ``scripts/build-variant`` sets it and builds
into a copy, never beside the sources.
``TQDB_PYTHON_ONLY=1`` compiles nothing, for an installation in place whose compiled parts are made beside it.
``TQDB_COUNTING_SWITCH=1`` lets the metrics' counters be turned off, for ``scripts/cost-of-metrics`` alone.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("TQDB_DEBUG") == "1"
VARIANT = os.environ.get("TQDB_VARIANT", "")
# compiler's flags, linker's flags; the code is the ordinary build's: no checks that it does not have. Functions and
# loops are aligned because their place alone made the scanner up to 20 % slower from one build to the next.
VARIANTS = {
    "": (["-O3", "-g0", "-fno-strict-aliasing", "-falign-functions=64", "-falign-loops=32"], []),
    "sanitize": (["-O1", "-g", "-UNDEBUG", "-fno-strict-aliasing", "-fno-wrapv", "-fno-omit-frame-pointer",
                  "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
                 ["-fsanitize=address,undefined"]),
    # clang's: counters of edges and compared values; atheris brings libFuzzer and the sanitizer's library
    "fuzz": (["-O1", "-g", "-UNDEBUG", "-fno-strict-aliasing", "-fno-omit-frame-pointer",
              "-fsanitize=address,fuzzer-no-link"], []),
    "coverage": (["-O0", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"], []),
}
FLAGS, LINK = (["-O0", "-g", "-UNDEBUG"], []) if DEBUG else VARIANTS[VARIANT]
FLAGS = [*FLAGS, "-Wno-unused-function", "-Wno-unreachable-code", "-Wno-sign-compare"]

extensions = [
    Extension(
        "tqdb._core",
        ["tqdb/_core.pyx"],
        depends=glob("tqdb/core/*.pxi"),
        define_macros=[("TQDB_COUNTING_SWITCH", "1")] if os.environ.get("TQDB_COUNTING_SWITCH") == "1" else [],
        extra_compile_args=FLAGS,
        extra_link_args=LINK,
    ),
]
if VARIANT in ("", "coverage"):
    extensions += [Extension(f"tqdb.load.{name}", [f"tqdb/load/{name}.pyx"], depends=["tqdb/load/epoll.pxd"],
                             extra_compile_args=FLAGS, extra_link_args=LINK) for name in ("_gen", "_null")]
if os.environ.get("TQDB_PYTHON_ONLY") == "1":
    extensions = []

setup(
    ext_modules=cythonize(
        extensions,
        annotate=os.environ.get("TQDB_ANNOTATE") == "1",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": not DEBUG,
            "initializedcheck": DEBUG,
            "linetrace": DEBUG or VARIANT == "coverage",
        },
    )
)
