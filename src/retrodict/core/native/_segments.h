/* Rows of hot keys. Twin: retrodict.features.online.state.segments. */

enum { MOST_EDGES = 256 };

/* The last of some rows, with the greatest words of all of them. */
static void put_together(char *found, Block *block, int64_t first, int64_t end, int64_t extreme, const char *floats,
                         int64_t extremes)
{
    for (int64_t i = 0; i < block->words; i++) {
        const Cells *column = column_of(block, i);
        /* Sums run, so the last row has those of all; extremes do not, and are looked for. */
        int64_t word = row_word(block, column, end - 1);
        for (int64_t row = i < extreme || i >= extreme + extremes ? end : first; row < end; row++) {
            int64_t other = row_word(block, column, row);
            if (floats[i - extreme] ? as_double(other) > as_double(word) : other > word)
                word = other;
        }
        memcpy(found + 8 * i, &word, sizeof word);
    }
}

/* Rows 1 and on of a block, those between two edges together; NULL with an error. */
static PyObject *parted(Block *block, PyObject *edges, int64_t extreme, const char *floats, int64_t extremes)
{
    int64_t ends[MOST_EDGES + 1], groups = 0, begin = 1;
    if (PyList_GET_SIZE(edges) > MOST_EDGES || extreme < 0 || extreme + extremes > block->words || block->count < 1) {
        PyErr_SetString(PyExc_ValueError, "rows are 64-bit words side by side, at least one, with their extremes");
        return NULL;
    }
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(edges); place++) {
        int64_t edge = PyLong_AsLongLong(PyList_GET_ITEM(edges, place));
        if (edge == -1 && PyErr_Occurred())
            return NULL;
        int64_t end = search(block, edge);
        /* An edge before the first row or beyond the last one parts nothing. */
        if (end > begin && end <= block->count)
            begin = ends[groups++] = end;
    }
    ends[groups++] = block->count + 1;
    PyObject *found = PyBytes_FromStringAndSize(NULL, 8 * groups * block->words);
    for (int64_t group = 0; found != NULL && group < groups; group++)
        put_together(PyBytes_AS_STRING(found) + 8 * group * block->words, block, group ? ends[group - 1] : 1, ends[group],
                     extreme, floats, extremes);
    return found;
}

/* together(rows: int64 array of two dimensions, at least one row, edges: ascending ints, first extreme: int,
 * floats: bytes, one per extreme) -> bytes */
static PyObject *together(PyObject *module, PyObject *arguments)
{
    Py_buffer rows;
    PyObject *array, *edges, *found = NULL;
    Py_ssize_t extreme, extremes;
    const char *floats;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!ny#", &array, &PyList_Type, &edges, &extreme, &floats, &extremes) ||
        PyObject_GetBuffer(array, &rows, PyBUF_STRIDED_RO) < 0)
        return NULL;
    if (rows.ndim != 2 || rows.itemsize != 8 || rows.strides[1] != 8)
        PyErr_SetString(PyExc_ValueError, "rows are 64-bit words side by side, at least one, with their extremes");
    else {
        Block block;
        block.data = rows.buf, block.bare = NULL, block.words = rows.shape[1], block.count = rows.shape[0];
        block.narrow = 0, block.rows = -rows.strides[0]; /* there is no base: row 1 is the first */
        block.wide = (Cells){0, rows.strides[0], 0, 0, 1, UINT64_MAX, 0, 0, 0};
        found = parted(&block, edges, extreme, floats, extremes);
    }
    PyBuffer_Release(&rows);
    return found;
}

/* settled(block: bytes, bytes of its layout: int, bare base row: bytes, edges, first extreme, floats) -> bytes: the same
 * of the rows of a stored block, which are not widened for it. */
static PyObject *settled(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    PyObject *edges, *found = NULL;
    Py_ssize_t layout, bare_size, extreme, extremes;
    const char *bare, *floats;
    Block block;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*ny#O!ny#", &data, &layout, &bare, &bare_size, &PyList_Type, &edges, &extreme,
                          &floats, &extremes))
        return NULL;
    if (!open_block(&block, data.buf, data.len, bare_size / 8, layout, bare))
        PyErr_SetString(PyExc_ValueError, "a block is cut off");
    else
        found = parted(&block, edges, extreme, floats, extremes);
    PyBuffer_Release(&data);
    return found;
}

#define SEGMENTS_METHODS {"together", together, METH_VARARGS, NULL}, {"settled", settled, METH_VARARGS, NULL},
