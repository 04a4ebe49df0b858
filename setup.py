"""Builds the compiled parts: ``tqdb/_core`` (the proxy's hot path), ``tqdb/load/_gen`` and ``tqdb/load/_null`` (the
load generator and the null backend).

``TQDB_DEBUG=1`` compiles with bounds checks, line tracing and C assertions; ``make debug`` sets it.
``TQDB_COUNTING_SWITCH=1`` lets the metrics' counters be turned off, for ``scripts/cost-of-metrics`` alone.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("TQDB_DEBUG") == "1"
FLAGS = ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-fno-strict-aliasing"]
FLAGS += ["-Wno-unused-function", "-Wno-unreachable-code", "-Wno-sign-compare"]

extensions = [
    Extension(
        "tqdb._core",
        ["tqdb/_core.pyx"],
        depends=glob("tqdb/core/*.pxi"),
        define_macros=[("TQDB_COUNTING_SWITCH", "1")] if os.environ.get("TQDB_COUNTING_SWITCH") == "1" else [],
        extra_compile_args=FLAGS,
    ),
    *(Extension(f"tqdb.load.{name}", [f"tqdb/load/{name}.pyx"], depends=["tqdb/load/epoll.pxd"],
                extra_compile_args=FLAGS) for name in ("_gen", "_null")),
]

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
            "linetrace": DEBUG,
        },
    )
)
