"""Coverage-guided fuzzing of the compiled core: ``make fuzz``, or ``python -m tests.fuzz --help``.

``targets`` holds the functions that are fed, ``corpus/TARGET`` what reaches most with few files, ``found/TARGET``
every input that once failed; ``tests/test_fuzz_corpus.py`` plays both with the ordinary build.
"""
