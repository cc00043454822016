"""Exchange of a vector's data with NumPy, CuPy, PyTorch and other libraries that support DLPack."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arguments import real_array
from ..backends.base import DOUBLE
from ..backends.exchange import imported
from ..comm.exclusive import exclusive
from ..errors import ArgumentError, ArgumentTypeError, BackendError, ShapeError
from ..layout import Space, in_words
from .data import VectorData


class VectorInterop(VectorData):
    """The interoperation of a `Vector`.

    All calls are local: each rank exchanges its own (num_blocks, block_size) values, with several vectors (num_vecs,
    num_blocks, block_size). `to_*` and the protocols share the vector's memory where they can and keep it alive.
    `from_*` copy into it and so initialise the vector. On ranks that hold no data `to_*` return None, and `from_*`
    ignore their argument and only mark the vector as initialised. There the protocols raise an ArgumentError, since
    they cannot express a missing array.
    """

    # NumPy's operators leave ``array * vector`` to the vector; else they would take this rank's part for the whole.
    __array_ufunc__ = None

    # PyTorch

    @exclusive
    def to_torch(self, dtype: Any = None) -> Any:
        """Return this rank's values as a tensor of `array`'s shape on the vector's device; None off the grid.

        Parameters
        ----------
        dtype : torch.dtype, optional
            float64 by default: the tensor is then the vector's own memory, written through and kept alive by it. A
            tensor of another floating dtype is a converted copy.

        Returns
        -------
        torch.Tensor or None
            Ready on PyTorch's current stream. A tensor that shares memory and is used on yet another stream must be
            kept until that stream is done with it.

        Raises
        ------
        UninitializedError
            The vector has no values.
        ArgumentTypeError
            `dtype` is not a floating torch.dtype.
        BackendError
            PyTorch is not installed.
        """
        self.check_initialized("to_torch")
        return None if not self.on_grid() else _tensors().share(self.comm.backend, self.array, dtype)

    @exclusive
    def from_torch(self, tensor: Any) -> None:
        """Copy this rank's values from a tensor, and initialise the vector by that.

        Parameters
        ----------
        tensor : torch.Tensor
            Of any floating dtype, any strides and any shape with as many elements as `array`, in its order; on the
            vector's device: the host's with the backend ``"cpu"``, else this rank's GPU. Whether it
            requires gradients does not matter: this is no differentiable operation (`numba_fftmatvec.torch` has those).
            Ignored on ranks that hold no data; pass None there.

        Raises
        ------
        ArgumentTypeError
            Not a tensor, not of a floating dtype, or inside a transform of `torch.func`.
        ArgumentError
            On another device.
        ShapeError
            Another number of elements.
        BackendError
            PyTorch is not installed.
        """
        self.check_open()
        if self.on_grid():
            self.drop_values()
            _tensors().assign(self.comm.backend, self.array, tensor)
        self.init_vec()

    # DLPack

    @exclusive
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a capsule that shares this rank's values, as the array API standard has it.

        Parameters
        ----------
        stream : int, optional
            The consumer's stream, which is made to wait for the Comm's; None on the CPU.
        max_version, dl_device, copy
            What the consumer asks for, as the standard describes it.

        Raises
        ------
        UninitializedError
            The vector has no values.
        ArgumentError
            This rank is off the vector's grid.
        BufferError
            The array's library cannot do what is asked for.
        """
        array = self._shared("__dlpack__")
        asked = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        given = {key: value for key, value in asked.items() if value is not None}
        # CuPy makes the consumer's stream wait for its current stream, so the Comm's must be the current one.
        with self.comm.backend.active():
            return array.__dlpack__(**given)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's kind and index of the device that this rank's values are on.

        Raises
        ------
        ArgumentError
            This rank is off the vector's grid.
        """
        kind, index = self._own("__dlpack_device__").__dlpack_device__()
        return int(kind), int(index)

    @exclusive
    def from_dlpack(self, source: Any) -> None:
        """Copy this rank's values from an object that speaks DLPack, and initialise the vector by that.

        Parameters
        ----------
        source : object with ``__dlpack__`` and ``__dlpack_device__``
            An array of real numbers of any shape with as many elements as `array`, on the vector's device. Off the grid
            None or anything.

        Raises
        ------
        ArgumentTypeError
            Not such an object, one that refuses to be exported, or not of real numbers.
        ArgumentError
            On another device.
        ShapeError
            Another number of elements.
        """
        self.check_open()
        if self.on_grid():
            mine, backend = self.array, self.comm.backend
            values = imported(backend, source, "from_dlpack")
            self._check_values(values, "from_dlpack")
            self.drop_values()
            with backend.active():
                mine[...] = values.reshape(mine.shape)
            # The source's owner may reuse its memory after `values` is deleted.
            backend.synchronize()
        self.init_vec()

    # CUDA array interface

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The rank's values by version 3 of the interface, with the Comm's stream; absent on the CPU.

        Raises
        ------
        AttributeError
            The backend is ``"cpu"``, so that ``hasattr`` tells.
        UninitializedError
            The vector has no values.
        ArgumentError
            This rank is off the vector's grid.
        """
        backend = self.comm.backend
        if backend.name != "cuda":
            raise AttributeError(f"a vector on the backend {backend.name!r} has no __cuda_array_interface__")
        # CuPy reports its current stream as the stream to wait for.
        with backend.active():
            description: dict[str, Any] = self._shared("__cuda_array_interface__").__cuda_array_interface__
        return description

    # NumPy

    @exclusive
    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the values, of `array`'s shape, on the host, as NumPy 2's protocol defines it.

        The vector must be on one rank. Of a vector that is spread over several ranks, NumPy's functions would take a
        part for the whole.

        Parameters
        ----------
        dtype : dtype, optional
            float64 by default; another one needs a copy.
        copy : bool, optional
            None: share the memory if possible, which it is on the CPU for float64. True: copy. False: never.

        Raises
        ------
        UninitializedError
            The vector has no values.
        ArgumentError
            The vector is spread over several ranks, this rank holds no data, or a copy is needed and `copy` is False.
        """
        array = self._shared("__array__")
        if (parts := self.comm.axis(self.layout.space).parts) > 1:
            raise ArgumentError(
                f"__array__: expected a vector on one rank, found one that is spread over {parts}; "
                "gather() returns the global values, to_numpy() this rank's"
            )
        on_host = isinstance(array, np.ndarray)
        wanted = DOUBLE if dtype is None else np.dtype(dtype)
        if copy is False and not (on_host and wanted == DOUBLE):
            place = "the host" if on_host else f"GPU {self.comm.device}"
            raise ArgumentError(
                f"__array__: expected copy=None or True for {wanted} from float64 on {place}, found False"
            )
        if on_host:
            return np.array(array, wanted, copy=copy)
        return self.comm.backend.download(array).astype(wanted, copy=False)

    @exclusive
    def from_numpy(self, array: npt.ArrayLike) -> None:
        """Copy this rank's values from the host, and initialise the vector by that. `scatter` takes the global ones.

        Parameters
        ----------
        array : array_like
            The real values of this rank, of `array`'s shape or flat. Ignored on ranks that hold no data; pass None
            there.

        Raises
        ------
        ArgumentTypeError
            Not real numbers.
        ShapeError
            Another shape.
        """
        self.check_open()
        if self.on_grid():
            values = real_array(array, "from_numpy")
            shape = self.array.shape
            self._check_values(values, "from_numpy")
            if values.shape not in (shape, (math.prod(shape),)):
                raise ShapeError(f"from_numpy: expected shape {shape}, or the same flat, found {values.shape}")
            self.drop_values()
            self.comm.backend.upload(self.array, values.reshape(shape))
        self.init_vec()

    def _check_values(self, values: Any, what: str) -> None:
        if values.dtype.kind not in "buif":
            raise ArgumentTypeError(f"{what}: expected real numbers, found dtype {values.dtype}")
        if values.size != self.array.size:
            raise ShapeError(
                f"{what}: expected {self.array.size} elements, as {in_words(self.array.shape)} have, "
                f"found shape {tuple(values.shape)}"
            )

    def _shared(self, what: str) -> Any:
        """Return this rank's array for reading."""
        self.check_initialized(what)
        return self._own(what)

    def _own(self, what: str) -> Any:
        self.check_open()
        if not self.on_grid():
            owner = {Space.COL: "row 0", Space.ROW: "column 0"}[self.layout.space]
            raise ArgumentError(
                f"{what}: expected a rank that owns a part of the vector, in the process grid's {owner}; "
                f"found one off the vector's grid, row {self.comm.row_color}, column {self.comm.col_color}"
            )
        return self.array


def _tensors() -> ModuleType:
    """Return the module that imports PyTorch."""
    try:
        return importlib.import_module(f"{__package__}.tensors")
    except ImportError as error:
        raise BackendError(
            f"PyTorch: expected it to be installed (pip install 'numba-fftmatvec[torch]'), found: {error}"
        ) from error
