"""4×4 matrices between voxel indices and world millimetres (RAS): which axis runs where, and how squarely."""

import numpy as np

ALIGNED = 2e-3  # sine of the angle below which a grid counts as parallel to the world's axes


def axes(matrix: np.ndarray) -> list[int]:
    """For each output axis of the matrix the input axis that runs along it most; each is taken once."""
    strength = np.abs(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))
    taken = [-1, -1, -1]
    for _ in range(3):
        row, column = np.unravel_index(np.argmax(strength), (3, 3))
        taken[row] = int(column)
        strength[row, :] = strength[:, column] = -1
    return taken


def is_oblique(matrix: np.ndarray) -> bool:
    unit = np.abs(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))
    return bool(np.sort(unit, axis=0)[1].max() > ALIGNED)


def upright(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Values whose axes lie as the matrix says, turned so that they run right, front, up; no copy."""
    order = axes(matrix)
    ways = [-1 if matrix[row, column] < 0 else 1 for row, column in enumerate(order)]
    return values.transpose(order)[tuple(slice(None, None, way) for way in ways)]


def straighten(matrix: np.ndarray) -> np.ndarray:
    """The matrix with each axis laid exactly along its nearest world axis; the origin stays."""
    straight = np.zeros((4, 4))
    straight[:, 3] = matrix[:, 3]
    for row, column in enumerate(axes(matrix)):
        step = np.linalg.norm(matrix[:3, column])
        straight[row, column] = np.copysign(step, matrix[row, column])
    return straight
