"""Qdrant's REST API in front of the client's own embedded engine: a stand-in, and not Qdrant's server.

There is no binary of Qdrant's server that tests could install, so this speaks the calls that Headrace makes, with the
real client's own models. It adds what that engine lacks and Qdrant has: payload indexes that are remembered, API keys,
answers with codes. It shows nothing of Qdrant's speed, index, durability or clustering.

    python -m tests.integration.harness.qdrant_server --path FOLDER --port 0    prints its port, serves on loopback
"""

import argparse
import json
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client.http import models
from werkzeug.serving import make_server

from producer.qdrant import QdrantAddress, connect

Handler = Callable[..., Any]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Store:
    """The engine, what it does not keep itself, and one lock around both.

    `dies_at_upsert` is the number of the upsert in the middle of which the process kills itself; `keeps_metadata` is
    false for a server older than Qdrant 1.16.
    """

    def __init__(self, folder: Path, *, dies_at_upsert: int = 0, keeps_metadata: bool = True) -> None:
        self.engine = connect(QdrantAddress(collection="", path=str(folder)), create=True)
        self.lock = threading.Lock()  # of the two together; the engine has its own
        self._keeps_metadata = keeps_metadata
        self._upserts_left = dies_at_upsert
        self._index_file = folder / "payload_indexes.json"
        self._indexes: dict[str, dict[str, Any]] = (
            json.loads(self._index_file.read_text()) if self._index_file.exists() else {}
        )

    def create(self, name: str) -> bool:
        asked = _body(models.CreateCollection)
        if name in self._names():
            raise Refusal(409, f"Wrong input: Collection `{name}` already exists!")
        return self.engine.create_collection(
            name, vectors_config=asked.vectors, metadata=asked.metadata if self._keeps_metadata else None
        )

    def update(self, name: str) -> bool:
        asked = _body(models.UpdateCollection)
        if self._keeps_metadata:
            self.engine.update_collection(self._real(name), metadata=asked.metadata)
        return True

    def delete(self, name: str) -> bool:
        existed = name in self._names()
        if existed:
            self.engine.delete_collection(name)
        if self._indexes.pop(name, None):
            self._keep_indexes()
        return existed

    def exists(self, name: str) -> Any:
        return models.CollectionExistence(exists=self.engine.collection_exists(name))

    def aliases(self, name: str) -> Any:
        return self.engine.get_collection_aliases(name)

    def info(self, name: str) -> Any:
        real = self._real(name)
        told = self.engine.get_collection(real)
        points = told.points_count or 0
        for field, schema in self._indexes.get(real, {}).items():
            shown = (
                {"data_type": schema["type"], "params": schema} if isinstance(schema, dict) else {"data_type": schema}
            )
            told.payload_schema[field] = models.PayloadIndexInfo.model_validate({**shown, "points": points})
        return told

    def index(self, name: str) -> Any:
        asked = _body(models.CreateFieldIndex)
        schema = asked.field_schema
        kept = schema.model_dump(mode="json", exclude_none=True) if isinstance(schema, BaseModel) else schema
        self._indexes.setdefault(self._real(name), {})[asked.field_name] = kept
        self._keep_indexes()
        return _DONE

    def upsert(self, name: str) -> Any:
        asked: Any = TypeAdapter(models.PointInsertOperations).validate_json(request.get_data())
        points = asked.points
        self._upserts_left -= 1
        if self._upserts_left == 0:
            self.engine.upsert(self._real(name), points[: len(points) // 2 or 1])
            os.kill(os.getpid(), signal.SIGKILL)
        return self.engine.upsert(self._real(name), points)

    def delete_points(self, name: str) -> Any:
        asked: Any = TypeAdapter(models.PointsSelector).validate_json(request.get_data())
        return self.engine.delete(self._real(name), asked)

    def scroll(self, name: str) -> Any:
        asked = _body(models.ScrollRequest)
        points, following = self.engine.scroll(
            self._real(name),
            scroll_filter=asked.filter,
            limit=asked.limit or 10,
            offset=asked.offset,
            with_payload=True if asked.with_payload is None else asked.with_payload,
            with_vectors=asked.with_vector or False,
        )
        return models.ScrollResult(points=points, next_page_offset=following)

    def retrieve(self, name: str) -> Any:
        asked = _body(models.PointRequest)
        return self.engine.retrieve(
            self._real(name),
            asked.ids,
            with_payload=True if asked.with_payload is None else asked.with_payload,
            with_vectors=asked.with_vector or False,
        )

    def query(self, name: str) -> Any:
        asked = _body(models.QueryRequest)
        return self.engine.query_points(
            self._real(name),
            query=asked.query,
            using=asked.using,
            prefetch=asked.prefetch,
            query_filter=asked.filter,
            search_params=asked.params,
            limit=asked.limit or 10,
            offset=asked.offset,
            with_payload=asked.with_payload or False,
            with_vectors=asked.with_vector or False,
            score_threshold=asked.score_threshold,
        )

    def count(self, name: str) -> Any:
        return self.engine.count(self._real(name), count_filter=_body(models.CountRequest).filter)

    def change_aliases(self) -> bool:
        return self.engine.update_collection_aliases(_body(models.ChangeAliasesOperation).actions)

    def _names(self) -> set[str]:
        return {collection.name for collection in self.engine.get_collections().collections}

    def _real(self, name: str) -> str:
        """The collection behind a name, which may be an alias."""
        aliases = {alias.alias_name: alias.collection_name for alias in self.engine.get_aliases().aliases}
        real = aliases.get(name, name)
        if real not in self._names():
            raise Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
        return real

    def _keep_indexes(self) -> None:
        self._index_file.write_text(json.dumps(self._indexes))


_DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


def make_app(store: Store, api_key: str = "") -> Flask:
    """The API as an application."""
    app = Flask("qdrant")
    collection = "/collections/<name>"
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "/collections", store.engine.get_collections),
        ("GET", "/aliases", store.engine.get_aliases),
        ("POST", "/collections/aliases", store.change_aliases),
        ("PUT", collection, store.create),
        ("PATCH", collection, store.update),
        ("DELETE", collection, store.delete),
        ("GET", collection, store.info),
        ("GET", f"{collection}/exists", store.exists),
        ("GET", f"{collection}/aliases", store.engine.get_collection_aliases),
        ("PUT", f"{collection}/index", store.index),
        ("PUT", f"{collection}/points", store.upsert),
        ("POST", f"{collection}/points", store.retrieve),
        ("POST", f"{collection}/points/delete", store.delete_points),
        ("POST", f"{collection}/points/scroll", store.scroll),
        ("POST", f"{collection}/points/query", store.query),
        ("POST", f"{collection}/points/count", store.count),
    ]
    for method, path, handler in routes:
        app.add_url_rule(path, f"{method} {path}", _answering(store, handler), methods=[method])

    @app.before_request
    def check_key() -> Response | None:
        given = request.headers.get("api-key", "")
        if not api_key or given == api_key:
            return None
        told = "Invalid API key or JWT" if given else "Must provide an API key or an Authorization bearer token"
        return Response(told, 401)

    return app


def _answering(store: Store, handler: Handler) -> Handler:
    """The handler behind the lock, with its result or its error as Qdrant words them."""

    def answer(**names: str) -> Response:
        try:
            with store.lock:
                result = TypeAdapter(Any).dump_json(handler(**names)).decode()
        except Refusal as refusal:
            return _error(refusal.code, str(refusal))
        except ValidationError as error:
            return _error(400, f"Format error in JSON body: {error.errors()[0]['msg']}")
        except (ValueError, TypeError, KeyError) as error:
            missing = "not found" in str(error)
            told = str(error).removeprefix("Wrong input: ")
            return _error(404 if missing else 400, f"{'Not found' if missing else 'Wrong input'}: {told}")
        return Response(f'{{"result":{result},"status":"ok","time":0.0}}', 200, mimetype="application/json")

    return answer


def _error(code: int, text: str) -> Response:
    body = json.dumps({"status": {"error": text}, "time": 0.0})
    return Response(body, code, mimetype="application/json")


def _body(kind: type[Any]) -> Any:
    return kind.model_validate_json(request.get_data())


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dies-at-upsert", type=int, default=0)
    parser.add_argument("--forgets-metadata", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store(given.path, dies_at_upsert=given.dies_at_upsert, keeps_metadata=not given.forgets_metadata)
    app = make_app(store, os.environ.get("QDRANT__SERVICE__API_KEY", ""))
    server = make_server("127.0.0.1", given.port, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
