"""Why a training ended early. Errors of ours, so that a cluster does not take them for a lost worker and begin anew."""

from antibody.errors import AntibodyError


class StoppedError(AntibodyError):
    """The job is no longer to be run: cancelled, paused, or given back. Its last step is in a checkpoint."""

    by_all = True

    def __init__(self, message: str = "The job was stopped.") -> None:
        super().__init__(message, hint="It can go on from its last checkpoint.", code="stopped")


class LostLeaseError(StoppedError):
    """The job may be another worker's by now, so nothing more is written."""

    def __init__(self) -> None:
        super().__init__("The lease is lost.")


class HeldError(StoppedError):
    """Most of the upload is suppressed, and the policy lets the provider decide."""

    def __init__(self) -> None:
        super().__init__("The job is held for review.")


class RefusedUploadError(AntibodyError):
    """Most of the upload is suppressed, and the policy refuses such jobs."""

    by_all = True

    def __init__(self, withheld: int, rows: int) -> None:
        super().__init__(
            f"{withheld} of {rows} rows of the training file are judged harmful, more than this service trains on.",
            hint="The job's result file names their lines.",
            code="mostly_suppressed",
        )
