"""The command line of training: one command from labelled scans to a weights file that carries its own scores."""

import sys
from collections.abc import Sequence

import torch.distributed as dist

from learning.folds import fold
from learning.options import parse
from learning.run import sentence, train
from learning.sweep import sweep


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(argv)
    try:
        return fold(given) if "folds" in given else sweep(given) if "sweep" in given else train(given)
    except KeyboardInterrupt:
        print("train.py: stopped before training began", file=sys.stderr)
        return 130
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        print(f"train.py: {said}", file=sys.stderr)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
