"""Models behind the small protocols of `workers.tasks`: adapters over fastembed, and the packaged offline models."""

import os

# onnxruntime's Linux wheels report usage unless told not to; it is read when the library is first loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
