/* Loops that Python is too slow for. Each function has a twin in Python that says what it means and that tests compare
 * it with; a machine without a compiler runs the twins. Nothing here keeps state, and nothing here decides anything. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "what is stored is little-endian, and here words are taken as they are: Python does the work"
#endif

#include "_narrow.h"
#include "_columns.h"
#include "_blocks.h"
#include "_decoding.h"
#include "_frames.h"
#include "_hashes.h"
#include "_merging.h"
#include "_search.h"
#include "_ranges.h"
#include "_segments.h"
#include "_sorting.h"
#include "_texts.h"

static PyMethodDef methods[] = {
    DECODING_METHODS FRAMES_METHODS MERGING_METHODS NARROW_METHODS RANGES_METHODS SEARCH_METHODS SEGMENTS_METHODS
    SORTING_METHODS TEXTS_METHODS
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    make_crc_tables();
    PyObject *self = PyModule_Create(&module);
    if (self == NULL || add_blocks(self) < 0 || add_hashes(self) < 0 ||
        PyModule_AddIntConstant(self, "VERSION", 5) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    return self;
}
