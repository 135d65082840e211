"""`python -m tests.integration.harness.asking`: a process that waits for a start signal, then embeds what it was told.

Standard input is JSON (url, namespace, model, texts, gate); standard output is the vectors, as JSON.
"""

import json
import sys

import redis

from producer import Producer


def main() -> None:
    """Connect, report for the start, wait for it, ask, print."""
    told = json.load(sys.stdin)
    models = {"embed_model": told["model"], "rerank_model": told["model"]}
    with (
        Producer.from_url(told["url"], namespace=told["namespace"], timeout_s=60.0, **models) as producer,
        redis.Redis.from_url(told["url"]) as client,
    ):
        producer.cached(["connect"])
        client.rpush(f"{told['gate']}:ready", 1)
        client.blpop([f"{told['gate']}:start"], timeout=60)
        print(json.dumps(producer.embed_many(told["texts"]).tolist()))


if __name__ == "__main__":
    main()
