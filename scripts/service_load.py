"""Clients that poll and upload while a job trains: how long they wait, and how much slower the training is.

    antibody serve --model tiny=RUN --port 8000          # elsewhere
    ANTIBODY_KEY=sk-antibody-... python scripts/service_load.py --model tiny --clients 200

The same job is trained twice on an upload of its own, first alone and then under load. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections import Counter
from typing import Any

import httpx2

READS = ("/files?limit=20", "/models", "/fine_tuning/jobs?limit=20", "JOB", "JOB/events?limit=20")
FINISHED = {"succeeded", "failed", "cancelled"}


def rows(count: int) -> bytes:
    chats = (
        [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": "word " * (i % 5 + 1)}]
        for i in range(count)
    )
    return "".join(json.dumps({"messages": chat}) + "\n" for chat in chats).encode()


async def create(client: httpx2.AsyncClient, arguments: argparse.Namespace) -> str:
    """A new job."""
    file = await upload(client)
    body = {
        "model": arguments.model,
        "training_file": file,
        "seed": 1,
        "hyperparameters": {"n_epochs": arguments.epochs, "batch_size": 4},
    }
    answer = await client.post("/fine_tuning/jobs", json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


async def upload(client: httpx2.AsyncClient) -> str:
    files = {"file": ("load.jsonl", rows(100))}
    answer = await client.post("/files", files=files, data={"purpose": "fine-tune"})
    answer.raise_for_status()
    return str(answer.json()["id"])


async def step_times(client: httpx2.AsyncClient, job: str) -> list[float]:
    """Waits for a job, and returns when each of its steps was seen."""
    seen: dict[int, float] = {}
    while True:
        events = (await client.get(f"/fine_tuning/jobs/{job}/events?limit=20")).json()["data"]
        for event in events:
            if event["type"] == "metrics":
                seen.setdefault(event["data"]["step"], time.perf_counter())
        status = (await client.get(f"/fine_tuning/jobs/{job}")).json()["status"]
        if status in FINISHED:
            if status != "succeeded":
                raise SystemExit(f"the job ended as {status}")
            return [seen[step] for step in sorted(seen)]
        await asyncio.sleep(0.5)


async def poll(
    client: httpx2.AsyncClient, number: int, job: str, pause: float, until: asyncio.Event, waits: Any
) -> None:
    """One client: reads, and every tenth time uploads."""
    turn = number
    await asyncio.sleep(pause * (number % 50) / 50)
    while not until.is_set():
        turn += 1
        began = time.perf_counter()
        if turn % 10 == 0:
            kind = "upload"
            try:
                await upload(client)
            except httpx2.HTTPError:
                waits["errors"][kind] += 1
        else:
            kind = "read"
            path = READS[turn % len(READS)].replace("JOB", f"/fine_tuning/jobs/{job}")
            try:
                (await client.get(path)).raise_for_status()
            except httpx2.HTTPError:
                waits["errors"][kind] += 1
        waits[kind].append(time.perf_counter() - began)
        await asyncio.sleep(pause)


def quantiles(values: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(values, n=100)
    return {name: round(1000 * cuts[at - 1], 1) for name, at in (("p50", 50), ("p95", 95), ("p99", 99))}


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    limits = httpx2.Limits(max_connections=arguments.clients + 10)
    headers = {"authorization": f"Bearer {os.environ['ANTIBODY_KEY']}"}
    async with httpx2.AsyncClient(base_url=arguments.url, headers=headers, limits=limits, timeout=60) as client:
        alone = await step_times(client, await create(client, arguments))
        job = await create(client, arguments)
        waits: dict[str, Any] = {"read": [], "upload": [], "errors": Counter()}
        until = asyncio.Event()
        clients = [
            asyncio.create_task(poll(client, number, job, arguments.pause, until, waits))
            for number in range(arguments.clients)
        ]
        loaded = await step_times(client, job)
        until.set()
        await asyncio.gather(*clients)
    seconds = [(times[-1] - times[0]) for times in (alone, loaded)]
    return {
        "clients": arguments.clients,
        "reads": len(waits["read"]),
        "uploads": len(waits["upload"]),
        "requests_per_second": round((len(waits["read"]) + len(waits["upload"])) / max(seconds[1], 1e-9), 1),
        "errors": dict(waits["errors"]),
        "read_ms": quantiles(waits["read"]),
        "upload_ms": quantiles(waits["upload"]) if len(waits["upload"]) > 1 else {},
        "training_seconds": {"alone": round(seconds[0], 1), "under load": round(seconds[1], 1)},
        "slower_percent": round(100 * (seconds[1] / seconds[0] - 1), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between a client's requests")
    parser.add_argument("--epochs", type=int, default=10)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
