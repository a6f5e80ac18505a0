/* Rows of hot keys. Twin: retrodict.features.online.state.segments. */

enum { MOST_EDGES = 256 };

/* First row from `low` on whose event time is not below the edge. */
static Py_ssize_t row_from(const Py_buffer *rows, Py_ssize_t low, int64_t edge)
{
    Py_ssize_t high = rows->shape[0];
    while (low < high) {
        Py_ssize_t middle = (low + high) >> 1;
        if (word_at((const char *)rows->buf + middle * rows->strides[0], 0) < edge)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The last of some rows, with the greatest words of all of them. */
static void put_together(char *found, const Py_buffer *rows, Py_ssize_t first, Py_ssize_t end, Py_ssize_t extreme,
                         const char *floats, Py_ssize_t extremes)
{
    const char *row = (const char *)rows->buf + first * rows->strides[0];
    /* Sums run, so the last row has those of all; extremes do not, and are looked for. */
    memcpy(found, (const char *)rows->buf + (end - 1) * rows->strides[0], 8 * (size_t)rows->shape[1]);
    for (Py_ssize_t column = extreme; column < extreme + extremes; column++) {
        int64_t best = word_at(row, column);
        const char *other = row;
        for (Py_ssize_t left = end - first; --left > 0;) {
            int64_t word = word_at(other += rows->strides[0], column);
            if (floats[column - extreme] ? as_double(word) > as_double(best) : word > best)
                best = word;
        }
        memcpy(found + 8 * column, &best, sizeof best);
    }
}

/* together(rows: int64 array of two dimensions, at least one row, edges: ascending ints, first extreme: int,
 * floats: bytes, one per extreme) -> bytes */
static PyObject *together(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t ends[MOST_EDGES + 1], groups = 0, begin = 0;
    Py_buffer rows;
    PyObject *found = NULL;
    (void)module;
    if (count != 4 || !PyList_Check(arguments[1]) || PyList_GET_SIZE(arguments[1]) > MOST_EDGES ||
        !PyBytes_Check(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "together takes (rows, edges, first extreme, floats)");
        return NULL;
    }
    Py_ssize_t extreme = PyLong_AsSsize_t(arguments[2]), extremes = PyBytes_GET_SIZE(arguments[3]);
    if ((extreme == -1 && PyErr_Occurred()) || PyObject_GetBuffer(arguments[0], &rows, PyBUF_STRIDED_RO) < 0)
        return NULL;
    if (rows.ndim != 2 || rows.itemsize != 8 || rows.shape[0] < 1 || rows.strides[1] != 8 || extreme < 0 ||
        extreme + extremes > rows.shape[1]) {
        PyErr_SetString(PyExc_ValueError, "rows are 64-bit words side by side, at least one, with their extremes");
        goto done;
    }
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(arguments[1]); place++) {
        int64_t edge = PyLong_AsLongLong(PyList_GET_ITEM(arguments[1], place));
        if (edge == -1 && PyErr_Occurred())
            goto done;
        Py_ssize_t end = row_from(&rows, begin, edge);
        /* An edge before the first row or beyond the last one parts nothing. */
        if (end > begin && end < rows.shape[0])
            begin = ends[groups++] = end;
    }
    ends[groups++] = rows.shape[0];
    found = PyBytes_FromStringAndSize(NULL, 8 * groups * rows.shape[1]);
    for (Py_ssize_t group = 0; found != NULL && group < groups; group++)
        put_together(PyBytes_AS_STRING(found) + 8 * group * rows.shape[1], &rows, group ? ends[group - 1] : 0,
                     ends[group], extreme, PyBytes_AS_STRING(arguments[3]), extremes);
done:
    PyBuffer_Release(&rows);
    return found;
}

#define SEGMENTS_METHODS {"together", (PyCFunction)(void (*)(void))together, METH_FASTCALL, NULL},
