"""One full-size forward pass of the 3-D network: ours, the modules as written, ONNX Runtime and OpenVINO.

    python -m benchmarks.bench_forward [--rounds N] [--training BATCH] [--no-memory] [--json]

All in one process in turn (A B C A B C), so that ratios hold while times drift; peak memory is that of a process
of its own each. The limit is the pass's multiplications at the speed of this machine's float32 matrix product.
On a busy machine `--threads 1 --cpu-time` still tells them apart. `--training` also times forward and backward of
one batch. On CUDA there is a sweep over batch sizes.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import model
from benchmarks.side_by_side import finish, in_turn, own_peak_mb, peak_mb, table
from networks import blockwise
from networks.forward import Forward
from studies import STUDIES

ROOT = Path(__file__).resolve().parent.parent

STUDY = STUDIES["alzheimers"]
SHAPE = STUDY.contract.shape
OURS, PUBLISHED, ONNX, OPENVINO, LIMIT = "ours", "published, eager", "ONNX Runtime", "OpenVINO", "matrix limit"
OURS_BF16, OPENVINO_BF16 = "ours, bf16", "OpenVINO, bf16"
SIDE = 2048  # of the matrices whose product gives the limit
MODES = {"published": "eager modules", "channels-last": "eager modules, channels last", "slabs": "ours, slabs"}


def network() -> nn.Module:
    """Untrained, with statistics that are not 0 and 1, so that folding has something to fold."""
    torch.manual_seed(0)
    made = model.ClassificationModel3D()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval().requires_grad_(False)


def scan(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


def multiplications() -> int:
    """Of one pass, convolutions and dense layers."""
    total, shape = 4800 * 128 + 128 * len(STUDY.labels), SHAPE
    for conv, _, pool in network().blocks():
        shape = [size - 2 for size in shape]
        total += conv.weight.numel() * shape[0] * shape[1] * shape[2]
        shape = [size // pool.kernel_size for size in shape]
    return total


def exported(folder: Path, x: torch.Tensor) -> Path:
    path = folder / "network.onnx"
    torch.onnx.export(network(), (x,), path, dynamo=True, external_data=False, verbose=False)
    return path


def contender(name: str, x: torch.Tensor, folder: Path) -> Callable[[], object] | None:
    """A call that takes the scan to logits, or None where this machine lacks what it needs."""
    if name in (OURS, OURS_BF16):
        if name == OURS_BF16 and not blockwise.has_bf16():
            return None
        forward = Forward(network(), "bf16" if name == OURS_BF16 else "fp32")
        return lambda: forward(x)[0]
    if name == PUBLISHED:
        made = network()
        return lambda: made(x)
    if name == LIMIT:
        a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
        return lambda: a @ b
    needs = {ONNX: "onnxruntime", OPENVINO: "openvino", OPENVINO_BF16: "openvino"}[name]
    if not importlib.util.find_spec(needs) or not importlib.util.find_spec("onnxscript"):
        return None
    values = x.numpy()
    if name == ONNX:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(exported(folder, x), settings, ["CPUExecutionProvider"])
        given = session.get_inputs()[0].name
        return lambda: session.run(None, {given: values})[0]
    if name == OPENVINO_BF16 and not blockwise.has_bf16():
        return None
    import openvino

    hint = {
        "INFERENCE_PRECISION_HINT": "bf16" if name == OPENVINO_BF16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.compile_model(exported(folder, x), "CPU", hint)
    return lambda: compiled(values)[0]


def check(name: str, call: Callable[[], object], x: torch.Tensor) -> None:
    """A fast wrong answer counts for nothing."""
    if name != LIMIT:
        off = float((torch.as_tensor(call()).float() - network()(x)).abs().max())
        if off > (0.1 if "bf16" in name else 1e-3):
            raise SystemExit(f"{name} is {off:.4f} off the modules as written")


def training_step(mode: str, batch: int) -> Callable[[], object]:
    """Forward and backward of one batch: the modules as written, the same channels last, or ours."""
    made, x = network().train().requires_grad_(True), scan(batch)
    y = torch.arange(batch) % len(STUDY.labels)
    if mode != "published":
        made.to(memory_format=torch.channels_last_3d)
        x = blockwise.channels_last(x)

    def plain(values: torch.Tensor) -> torch.Tensor:
        for conv, norm, pool in made.blocks():
            values = pool(made.relu(norm(conv(values))))
        return made.head(made.top(values))

    def step() -> float:
        made.zero_grad()
        loss = nn.functional.cross_entropy(made(x) if mode == "slabs" else plain(x), y)
        loss.backward()
        return float(loss.detach())

    return step


def on_cuda() -> list[list[object]]:
    """Scans a second by batch size, as written and ours."""
    rows = []
    for batch in (1, 2, 4, 8, 16, 32):
        x = scan(batch).cuda()
        plain, forward = network().cuda(), Forward(network().cuda())

        def timed(call: Callable, x: torch.Tensor = x) -> None:
            call(x)
            torch.cuda.synchronize()

        with torch.inference_mode():
            found = in_turn({"plain": lambda f=plain: timed(f), "ours": lambda f=forward: timed(f)}, 10)
        rows.append(
            [
                batch,
                *(f"{batch / found[name]:.1f}" for name in ("plain", "ours")),
                f"{found['plain'] / found['ours']:.2f}×",
            ]
        )
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed (%(default)s)")
    parser.add_argument(
        "--training",
        type=int,
        default=0,
        metavar="BATCH",
        help="also time a training step of this many volumes (each needs about 2 GB as written)",
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of each contender (%(default)s)"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="time the processor's work, not the clock on the wall"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory of each")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # in a process of its own: print its peak memory
    parser.add_argument("--rounds-only", type=int, default=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    x = scan()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only:
            step = (
                training_step(options.only, options.training)
                if options.training
                else contender(options.only, x, folder)
            )
            for _ in range(options.rounds_only):
                step()
            print(own_peak_mb())
            return
        names = [PUBLISHED, OURS, OURS_BF16, ONNX, OPENVINO, OPENVINO_BF16, LIMIT]
        with torch.inference_mode():
            found = {key: contender(key, x, folder) for key in names}
            calls = {key: call for key, call in found.items() if call}
            for key, call in calls.items():
                check(key, call, x)
            seconds = in_turn(calls, options.rounds, clock)
    seconds[LIMIT] *= multiplications() / SIDE**3
    memory = {} if options.no_memory else {key: peak_mb(__file__, "--only", key) for key in (OURS, PUBLISHED)}

    def ratio(other: str) -> float | None:
        return seconds[other] / seconds[OURS] if other in seconds else None

    figures = {
        "vs_published": ratio(PUBLISHED),
        "vs_openvino": ratio(OPENVINO),
        "vs_onnxruntime": ratio(ONNX),
        "vs_limit": ratio(LIMIT),
        "seconds": seconds,
        "peak_mb": memory,
        "threads": options.threads,
        "gigaflop": 2 * multiplications() / 1e9,
    }
    rows = [
        [
            key,
            f"{seconds[key] * 1000:.0f} ms" if key in seconds else "not here",
            f"{seconds[PUBLISHED] / seconds[key]:.2f}×" if key in seconds else None,
            f"{seconds[key] / seconds[OURS]:.2f}" if key in seconds else None,
            f"{memory[key]:.0f} MB" if key in memory else None,
        ]
        for key in names
    ]
    text = table(["one volume of " + "×".join(map(str, SHAPE)), "median", "speed", "time / ours", "peak"], rows)
    if options.training:
        steps = in_turn(
            {mode: training_step(mode, options.training) for mode in MODES}, max(1, options.rounds // 5), clock
        )
        peaks = (
            {}
            if options.no_memory
            else {
                mode: peak_mb(__file__, "--only", mode, "--training", str(options.training), "--rounds-only", "1")
                for mode in MODES
            }
        )
        figures["training"] = {
            "batch": options.training,
            "seconds": steps,
            "peak_mb": peaks,
            "vs_published": steps["published"] / steps["slabs"],
            "vs_channels_last": steps["channels-last"] / steps["slabs"],
        }
        text += "\n\n" + table(
            [f"training step, batch {options.training}", "median", "speed", "peak"],
            [
                [
                    words,
                    f"{steps[mode]:.2f} s",
                    f"{steps['published'] / steps[mode]:.2f}×",
                    f"{peaks[mode]:.0f} MB" if peaks else None,
                ]
                for mode, words in MODES.items()
            ],
        )
    if torch.cuda.is_available():
        rows = on_cuda()
        figures["cuda"] = rows
        text += "\n\n" + table(["batch on CUDA", "scans/s, eager fp32", "scans/s, ours", "speed"], rows)
    finish(figures, text, options.json)


if __name__ == "__main__":
    main()
