"""`SIMULATORS`: which function draws the pictures of a study."""

from collections.abc import Callable, Iterator

import numpy as np

from simulation.pictures import chest_ct, radiographs, slices, tumours

Truth = dict[str, object]  # every picture of a study has the same keys
# (seed, class) → pictures (rows, columns) of 8 bits, each with its truth
Simulator = Callable[[tuple[int, ...], str], Iterator[tuple[np.ndarray, Truth]]]

SIMULATORS: dict[str, Simulator] = {
    "dementia-slices": slices.subject,
    "brain-tumour": tumours.subject,
    "covid-ct": chest_ct.subject,
    "chest-nodule": radiographs.subject,
}
