"""Where a run's measures can be watched: TensorBoard and MLflow, each where it is installed."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol


class Board(Protocol):
    def add(self, values: Mapping[str, float], epoch: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, out: Path, epoch: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out / "board"), purge_step=epoch + 1)

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """In a folder beside the run, unless MLFLOW_TRACKING_URI names a server."""

    def __init__(self, out: Path, settings: Mapping[str, Any]):
        import mlflow

        self.mlflow = mlflow
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri((out / "mlruns").resolve().as_uri())
        mlflow.start_run(run_name=out.name)
        plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
        mlflow.log_params(plain)

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        self.mlflow.log_metrics(dict(values), step=epoch)

    def close(self) -> None:
        self.mlflow.end_run()


def boards(out: Path, settings: Mapping[str, Any], epoch: int) -> list[Board]:
    """Those that are installed; `settings` are told without folders."""
    found: list[Board] = [TensorBoard(out, epoch)] if find_spec("tensorboard") else []
    return [*found, MLflow(out, settings)] if find_spec("mlflow") else found
