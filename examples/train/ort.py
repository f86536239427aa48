"""ONNX Runtime's C API through ctypes: load a model from memory, run it. Standard library only.

Debian has no Python package of it, and this way the expected answers come from the very library
that the server opens, without a second build of it in between.
"""
import ctypes
import math

# Positions in struct OrtApi (onnxruntime_c_api.h). ONNX Runtime only ever appends to that struct,
# so they hold for every later version.
GET_ERROR_MESSAGE = 2
CREATE_ENV = 3
CREATE_SESSION_FROM_ARRAY = 8
RUN = 9
CREATE_SESSION_OPTIONS = 10
SET_INTRA_OP_NUM_THREADS = 24
SET_INTER_OP_NUM_THREADS = 25
CREATE_TENSOR_WITH_DATA = 49
GET_TENSOR_MUTABLE_DATA = 51
GET_TENSOR_ELEMENT_TYPE = 60
GET_TENSOR_SHAPE_ELEMENT_COUNT = 64
GET_TENSOR_TYPE_AND_SHAPE = 65
CREATE_CPU_MEMORY_INFO = 69
RELEASE_VALUE = 96
RELEASE_TENSOR_TYPE_AND_SHAPE = 99

API_VERSION = 17        # the oldest that has all of the above; any 1.17 or later offers it
LOGGING_WARNING = 2
ALLOCATOR_ARENA = 1
MEMORY_DEFAULT = 0
ELEMENT_TYPES = {1: ctypes.c_float, 7: ctypes.c_int64}
ELEMENT_FLOAT = 1


class _ApiBase(ctypes.Structure):
    _fields_ = [("get_api", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)),
                ("get_version_string", ctypes.CFUNCTYPE(ctypes.c_char_p))]


class Session:
    """One model, one thread, every other option at its default, as the server opens it.

    Lives until the process ends: the only user is a script that runs a model or two.
    """

    def __init__(self, library, model):
        library = ctypes.CDLL(str(library))
        library.OrtGetApiBase.restype = ctypes.POINTER(_ApiBase)
        base = library.OrtGetApiBase().contents
        self.version = base.get_version_string().decode()
        table = base.get_api(API_VERSION)
        if not table:
            raise RuntimeError(f"ONNX Runtime {self.version} does not offer API {API_VERSION}")
        self._table = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
        environment = self._make(CREATE_ENV, ctypes.c_int(LOGGING_WARNING), b"examples")
        options = self._make(CREATE_SESSION_OPTIONS)
        self._call(SET_INTRA_OP_NUM_THREADS, options, ctypes.c_int(1))
        self._call(SET_INTER_OP_NUM_THREADS, options, ctypes.c_int(1))
        self._session = self._make(CREATE_SESSION_FROM_ARRAY, environment, model,
                                   ctypes.c_size_t(len(model)), options)
        self._memory = self._make(CREATE_CPU_MEMORY_INFO, ctypes.c_int(ALLOCATOR_ARENA),
                                  ctypes.c_int(MEMORY_DEFAULT))

    def run(self, name, shape, values, outputs):
        """Runs on one FP32 input; returns a flat list of numbers per name in outputs."""
        if len(values) != math.prod(shape):
            raise ValueError(f"{len(values)} values for shape {shape}")
        data = (ctypes.c_float * len(values))(*values)
        dims = (ctypes.c_int64 * len(shape))(*shape)
        given = self._make(CREATE_TENSOR_WITH_DATA, self._memory, data,
                           ctypes.c_size_t(ctypes.sizeof(data)), dims,
                           ctypes.c_size_t(len(shape)), ctypes.c_int(ELEMENT_FLOAT))
        answers = (ctypes.c_void_p * len(outputs))()
        self._call(RUN, self._session, None, (ctypes.c_char_p * 1)(name.encode()),
                   (ctypes.c_void_p * 1)(given), ctypes.c_size_t(1),
                   (ctypes.c_char_p * len(outputs))(*(output.encode() for output in outputs)),
                   ctypes.c_size_t(len(outputs)), answers)
        numbers = [self._numbers(ctypes.c_void_p(answer)) for answer in answers]
        for value in (given, *map(ctypes.c_void_p, answers)):
            self._function(RELEASE_VALUE, None)(value)
        return numbers

    def _numbers(self, value):
        info = self._make(GET_TENSOR_TYPE_AND_SHAPE, value)
        kind, count = ctypes.c_int(), ctypes.c_size_t()
        self._call(GET_TENSOR_ELEMENT_TYPE, info, ctypes.byref(kind))
        self._call(GET_TENSOR_SHAPE_ELEMENT_COUNT, info, ctypes.byref(count))
        self._function(RELEASE_TENSOR_TYPE_AND_SHAPE, None)(info)
        data = self._make(GET_TENSOR_MUTABLE_DATA, value)
        return list((ELEMENT_TYPES[kind.value] * count.value).from_address(data.value))

    def _function(self, index, result=ctypes.c_void_p):
        return ctypes.CFUNCTYPE(result)(self._table[index])

    def _call(self, index, *arguments):
        """Calls a function that returns an OrtStatus: NULL is success."""
        status = self._function(index)(*arguments)
        if status:
            text = self._function(GET_ERROR_MESSAGE, ctypes.c_char_p)(ctypes.c_void_p(status))
            raise RuntimeError(text.decode())

    def _make(self, index, *arguments):
        """Calls a function whose last argument takes the object that it makes; returns that."""
        made = ctypes.c_void_p()
        self._call(index, *arguments, ctypes.byref(made))
        return made
