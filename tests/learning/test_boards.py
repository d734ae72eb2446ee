"""Watching a run: what is installed is told, what is not is not missed."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

from learning import boards


def test_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(boards, "find_spec", lambda name: None)
    assert boards.boards(tmp_path, {}, 0) == []


def test_both_are_told_of_each_epoch(tmp_path, monkeypatch):
    said = []
    flow = ModuleType("mlflow")
    flow.__spec__ = ModuleSpec("mlflow", None)
    flow.set_tracking_uri = lambda uri: said.append(("uri", uri))
    flow.start_run = lambda run_name: said.append(("run", run_name))
    flow.log_params = lambda params: said.append(("params", params))
    flow.log_metrics = lambda values, step: said.append((step, values))
    flow.end_run = lambda: said.append(("end",))
    writer = SimpleNamespace(
        add_scalar=lambda name, value, epoch: said.append((epoch, name, value)),
        close=lambda: said.append(("shut",)),
    )
    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = lambda folder, purge_step: said.append((folder, purge_step)) or writer
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setattr(boards, "find_spec", lambda name: True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    opened = boards.boards(tmp_path / "run", {"lr": 0.1, "study": "tiny", "shape": None}, 4)
    for one in opened:
        one.add({"val_loss": 0.5}, 5)
        one.close()
    assert said == [
        (str(tmp_path / "run" / "board"), 5),
        ("uri", (tmp_path / "run" / "mlruns").as_uri()),
        ("run", "run"),
        ("params", {"lr": 0.1, "study": "tiny"}),
        (5, "val_loss", 0.5),
        ("shut",),
        (5, {"val_loss": 0.5}),
        ("end",),
    ]
    said.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    boards.MLflow(tmp_path, {})
    assert "uri" not in {words[0] for words in said}
