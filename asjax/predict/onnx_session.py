"""onnxruntime on CPU, quiet and without busy threads."""

from __future__ import annotations

from asjax.config import AsjaxError


def session(path, threads: int = 0):
    """An onnxruntime session of a file. threads: 0: as many as there are cores.

    Raises:
      AsjaxError: onnxruntime is not installed, or it does not take the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise AsjaxError(
            'a model in .onnx needs onnxruntime, which is not installed: pip install "asjax[onnx]"'
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has several errors of its own
        lines = str(error).splitlines() or [type(error).__name__]
        raise AsjaxError(f"{path} is not a model that onnxruntime runs: {lines[0][:300]}") from None
