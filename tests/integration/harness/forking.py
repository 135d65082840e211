"""`python -m tests.integration.harness.forking URL NAMESPACE MODEL`: a producer that is used before and after forks.

Every child embeds a text of its own and one that the others ask for, too; prints "parent and children: ok".
"""

import os
import sys
import threading
import warnings

import numpy as np

from producer import Producer
from tests.integration.harness.fake_model import vector_of

CHILDREN = 4


def main() -> None:
    """Use one producer in a parent and its children."""
    url, namespace, model = sys.argv[1:]
    # CPython 3.12 and later warn of every fork in a process with threads; that the producer bears it is the point.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    producer = Producer.from_url(url, namespace=namespace, embed_model=model, rerank_model=model, timeout_s=30.0)
    _check(producer, "parent before")
    children = [_fork(producer, number) for number in range(CHILDREN)]
    _check(producer, "parent after")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    _check(producer, "parent at the end")
    producer.close()
    print("parent and children: ok" if codes == [0] * CHILDREN else f"exit codes of the children: {codes}")


def _fork(producer: Producer, number: int) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        _check(producer, f"child {number}")
        _check(producer, "asked by all children")
        # Without a thread of its own a child would still be answered, by slow re-checks.
        code = 0 if any(thread.name == "headrace-listener" for thread in threading.enumerate()) else 2
        producer.close()
    finally:
        os._exit(code)


def _check(producer: Producer, text: str) -> None:
    if not np.array_equal(producer.embed(text), vector_of(text)):
        raise SystemExit(f"{text}: a wrong vector")


if __name__ == "__main__":
    main()
