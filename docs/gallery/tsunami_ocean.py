"""The ocean of tsunami.py: linear shallow water over a sloping sea floor, its adjoint, and the true uplift."""

import numpy as np
import scipy.sparse as sparse

LENGTH, GRAVITY = 200e3, 9.81  # of the square basin in m, and in m/s^2
ACTIVE = 16  # output steps until the rupture ends


class Ocean:
    """Linear shallow water over a sloping sea floor: a wall at the coast in the east, sponges at the other sides.

    The state has the surface elevation of each cell and the velocities at the faces between cells. A substep updates
    the velocities and then the elevation: ``u += -dt g grad eta``, ``eta += -dt div(H u)``. Output steps have several
    substeps, during which the uplift rate is constant.
    """

    def __init__(self, size: int) -> None:
        self.size, self.cells = size, size * size
        width = LENGTH / size
        centre = (np.arange(size) + 0.5) * width
        self.east, self.north = np.meshgrid(centre, centre, indexing="ij")
        slope = np.clip((LENGTH - self.east) / LENGTH * 1.25 - 0.1, 0, 1)
        depth = (200 + 3800 * slope) * (1 + 0.15 * np.sin(2 * np.pi * self.north / LENGTH))
        self.substep = 0.4 * width / np.sqrt(2 * GRAVITY * depth.max())  # below the limit of stability
        self.substeps = max(1, round(size / 12))  # so that an output step is as long on every grid
        self.step = self.substeps * self.substep

        difference = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(size - 1, size)) / width
        average = abs(difference) * width / 2
        identity = sparse.eye_array(size)
        gradient = sparse.vstack([sparse.kron(difference, identity), sparse.kron(identity, difference)])
        to_faces = sparse.vstack([sparse.kron(average, identity), sparse.kron(identity, average)])
        border = np.minimum.reduce([self.east, self.north, LENGTH - self.north]) / LENGTH
        sponge = np.where(border < 0.1, 0.15 * (1 - border / 0.1) ** 2, 0).ravel()
        damp, damp_faces = (sparse.diags_array(np.exp(-values)) for values in (sponge, to_faces @ sponge))

        elevation = sparse.eye_array(self.cells, self.cells + gradient.shape[0])
        velocities = sparse.eye_array(gradient.shape[0], self.cells + gradient.shape[0], k=self.cells)
        updated = damp_faces @ (velocities - self.substep * GRAVITY * gradient @ elevation)
        flux = sparse.diags_array(to_faces @ depth.ravel()) @ updated  # minus the adjoint of the gradient is div
        self.forward = sparse.vstack([damp @ (elevation + self.substep * gradient.T @ flux), updated]).tocsr()
        self.adjoint = self.forward.T.tocsr()

    def cell(self, east: float, north: float) -> int:
        """Return the index of the cell at a place, in parts of the basin's length."""
        return int(east * self.size) * self.size + int(north * self.size)

    def block_row(self, cell: int, steps: int) -> np.ndarray:
        """Return the (cells, steps) response of the elevation at a cell to uplift anywhere: one adjoint solve."""
        state, found = np.zeros(self.adjoint.shape[0]), np.empty((self.cells, steps))
        state[cell] = 1.0
        for step in range(steps):
            total = np.zeros(self.cells)
            for _ in range(self.substeps):
                total += state[: self.cells]
                state = self.adjoint @ state
            found[:, step] = self.substep * total
        return found

    def run(self, rate: np.ndarray) -> np.ndarray:
        """Return the (steps, cells) elevation after each output step, for an uplift rate (cells, steps) in m/s."""
        state, found = np.zeros(self.forward.shape[0]), []
        for step in range(rate.shape[1]):
            for _ in range(self.substeps):
                state = self.forward @ state
                state[: self.cells] += self.substep * rate[:, step]
            found.append(state[: self.cells].copy())
        return np.array(found)


def rupture(ocean: Ocean, steps: int) -> np.ndarray:
    """Return the true uplift rate: a front that runs north, with subsidence on its landward side."""
    rate = np.zeros((steps, ocean.size, ocean.size))
    for step in range(min(ACTIVE, steps)):
        north = 0.28 * LENGTH + 260.0 * step * ocean.step
        for east, height, width in ((0.34, 1.0, 0.06), (0.47, -0.45, 0.055)):
            across, along = (ocean.east - east * LENGTH) / (width * LENGTH), (ocean.north - north) / (0.07 * LENGTH)
            rise = 0.011 * height * np.sin(np.pi * (step + 0.5) / ACTIVE)
            rate[step] += rise * np.exp(-(across**2) - along**2)
    return rate.reshape(steps, -1).T
