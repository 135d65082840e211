"""The service that a team writes instead of a queue: Flask and fastembed, a model in each worker of gunicorn."""

from flask import Flask, Response, jsonify, request

from benchmarks import direct


def create_app() -> Flask:
    """Load the model, and answer POST /embed {"text"} and POST /embed/batch {"texts"} in JSON."""
    app = Flask(__name__)
    model = direct.embedder()
    list(model.embed(["warm-up"]))

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.post("/embed")
    def embed() -> Response:
        (vector,) = model.embed([request.get_json()["text"]])
        return jsonify(embedding=vector.tolist())

    @app.post("/embed/batch")
    def embed_batch() -> Response:
        return jsonify(embeddings=[vector.tolist() for vector in model.embed(request.get_json()["texts"])])

    return app
