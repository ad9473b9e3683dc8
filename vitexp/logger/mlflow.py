"""MLflow: a run in a local SQLite file, or on the server of $MLFLOW_TRACKING_URI.

A resume goes on with the same run; the steps that it repeats stand there twice, with the same values. What was logged
in the last seconds before a kill is missing; metrics.csv has it.
"""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vitexp.errors import first_line
from vitexp.logger.tracker import Session

# Read at the import: no usage data, no notices, a server that is gone is given up within seconds.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_METRICS, _PARAMS = 500, 100  # one request holds no more than 1000 and 100

log = logging.getLogger(__name__)


class Mlflow:
    """Metrics are sent every `flush_seconds`: a request costs more than a step of a small model."""

    name = "mlflow"

    def __init__(self, settings: Mapping[str, Any], session: Session) -> None:
        """Begin the run, or go on with it.

        Args:
            settings: `logger.mlflow` of the configuration.
            session: the run; its configuration becomes parameters with dotted names.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.errors = (MlflowException, OSError)
        outputs = Path(str(session.config["outputs"])).resolve()
        server = settings["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(server or f"sqlite:///{outputs}/mlflow.db")
        self._seconds, self._sent, self._rows = settings["flush_seconds"], time.monotonic(), list[Any]()
        known = session.ids.get(self.name)
        self.id: str = known or self._begin(settings["experiment"], session, None if server else f"{outputs}/mlflow")
        if known:
            self._client.update_run(known, status="RUNNING")

    def _begin(self, experiment: str, session: Session, place: str | None) -> str:
        """Make the run and, the first time, the experiment, whose pictures go to `place`; None is the server's own."""
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment, place)
        tags = {"run_dir": str(session.run_dir.resolve()), **({"sweep": session.group} if session.group else {})}
        run: str = self._client.create_run(number, run_name=session.run_name, tags=tags).info.run_id
        values = [Param(_allowed(name), str(value)) for name, value in _flat(session.config)]
        for first in range(0, len(values), _PARAMS):
            self._client.log_batch(run, params=values[first : first + _PARAMS])
        return run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep the values, and send those of the last seconds when it is time."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._rows += [Metric(_allowed(name), value, now, step) for name, value in metrics.items()]
        if time.monotonic() - self._sent > self._seconds or len(self._rows) > _METRICS:
            self._send()

    def picture(self, name: str, path: Path, step: int) -> None:
        """Upload a PNG."""
        with Image.open(path) as image:
            self._client.log_image(self.id, image, key=_allowed(name), step=step)

    def finish(self, exit_code: int) -> None:
        """Send what is left; the run is FINISHED or FAILED."""
        self._send()
        self._client.set_terminated(self.id, "FINISHED" if exit_code == 0 else "FAILED")

    def _send(self) -> None:
        rows, self._rows, self._sent = self._rows, [], time.monotonic()
        self._client.log_batch(self.id, metrics=rows)


def start(settings: Mapping[str, Any], session: Session) -> Mlflow | None:
    """The run there; None, and a line, where the store does not answer."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException

    try:
        return Mlflow(settings["mlflow"], session)
    except (MlflowException, OSError) as error:
        log.warning("mlflow does not start (%s); the run goes on without it", first_line(error))
        return None


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _allowed(name: str) -> str:
    return re.sub(r"[^\w./ :-]", "_", name)
