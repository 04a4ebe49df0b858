"""Errors that reach the user of the command line."""


class TqdbError(Exception):
    """Failed while running: exit code 1, the text is one line."""


class ConfigError(TqdbError):
    """Bad usage or configuration: exit code 2. The text names file, section, key and what is allowed."""
