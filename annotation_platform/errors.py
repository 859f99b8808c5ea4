"""Every error that a user can cause, as one tree.

AnnotationPlatformError
├── SettingsError      a setting, a policy or an installation is wrong
├── DataError          something in the data is wrong
│   ├── TableError     a table does not have its declared columns, types or ranges
│   └── FormatError    an annotation file cannot be read
├── NotReadyError      requested too early; the message names what is missing
├── LabelingError      the labelling server refused, or cannot be reached
├── QueryError         a query is wrong, or does more than read
├── ModelError         weights cannot be used
└── PublishError       a version cannot be published or read

Each message states what happened, where, and what to do. The command line prints it as one line
and exits with 2; anything else that escapes is a bug and keeps its traceback.
"""


class AnnotationPlatformError(Exception):
    """An error that the user can correct."""


class SettingsError(AnnotationPlatformError):
    """A setting, a policy file or an installation is wrong."""


class DataError(AnnotationPlatformError):
    """The data contradict their declaration."""


class TableError(DataError):
    """A table does not have its declared columns, types or ranges."""


class FormatError(DataError):
    """An annotation file cannot be read."""

    def __init__(self, path: str, line: int, problem: str, remedy: str) -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(f"{place}: {problem}. {remedy}")
        self.path, self.line = path, line


class NotReadyError(AnnotationPlatformError):
    """A result was requested before its inputs exist."""


class LabelingError(AnnotationPlatformError):
    """The labelling server refused a request or cannot be reached."""


class QueryError(AnnotationPlatformError):
    """A query is wrong, or does more than read the catalog."""


class ModelError(AnnotationPlatformError):
    """Model weights are missing, damaged or of the wrong kind."""


class PublishError(AnnotationPlatformError):
    """A dataset version cannot be published or read."""


class AlertError(AnnotationPlatformError):
    """An alert could not be delivered; the message holds no secret."""
