"""What the server tells its worker processes: one JSON object on their standard input, which they hold open.

So nothing secret stands in a command line, and a worker whose server died sees its standard input end.
"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

from antibody.service.policy import Policy
from antibody.service.storage.store import Place

Role = Literal["train", "validate"]


class Order(NamedTuple):
    """What a worker process is to do.

    Attributes:
        role: Train jobs, or validate their files.
        worker: Its name in leases.
        place: Where the service keeps things.
        policy: The provider's.
        lease_seconds: After which a worker that says nothing counts as dead.
        poll_seconds: Between two looks for a job.
        processes: That share a job's training.
        cluster: Ray's address, or None to train in the worker itself.
    """

    role: Role
    worker: str
    place: Place
    policy: Policy
    lease_seconds: float = 30.0
    poll_seconds: float = 0.5
    processes: int = 1
    cluster: str | None = None

    def to_line(self) -> str:
        content = self._asdict() | {
            "place": {"folder": str(self.place.folder), "database": self.place.database, "blobs": self.place.blobs},
            "policy": self.policy.model_dump(mode="json"),
        }
        return json.dumps(content) + "\n"


def read_order(line: str) -> Order:
    content = json.loads(line)
    place = content.pop("place")
    return Order(
        place=Place(Path(place["folder"]), place["database"], place["blobs"]),
        policy=Policy.model_validate(content.pop("policy")),
        **content,
    )
