/* Putting blocks of online state together, all keys of a batch in one call. Twin: retrodict.features.online.write.merge.
 *
 * What goes into a block has been found before: which rows of the old block stay, which rows follow, the numbers of its
 * header. Here bytes are moved, and the rows that no answerable request reads are left out. */

#include <stdint.h>
#include <string.h>

enum { CUT_OLD, CUT_BUT_NEWEST, CUT_ELSEWHERE };
enum { MONOTONE_FLAG = 1, HOT_FLAG = 2 };

/* All in bytes or rows; `known` is the column of known-at, or 0 where it is the event time plus `delay`. */
typedef struct {
    int64_t words, head, cut, limit, floor, known, delay, garbage;
} Rules;

/* Of one key: end of its new rows, where the rows of its old block begin and how many of them stay, and its header. */
typedef struct {
    int64_t stop, begin, kept, flags, visible, held;
} Part;

/* Rows of one block in order: some at one place, the others at another. */
typedef struct {
    const char *old, *fresh;
    int64_t kept, count, words;
} Rows;

static const char *row_of(const Rows *rows, int64_t place)
{
    return place < rows->kept ? rows->old + 8 * rows->words * place
                              : rows->fresh + 8 * rows->words * (place - rows->kept);
}

static int64_t visible_at(const Rules *rules, const char *row)
{
    int64_t event = word_at(row, 0);
    int64_t known = rules->known ? word_at(row, rules->known) : (int64_t)((uint64_t)event + (uint64_t)rules->delay);
    return event > known ? event : known;
}

/* How many rows are left out at the beginning; the last of them becomes the base. */
static int64_t gone_of(const Rules *rules, const Rows *rows, int64_t flags)
{
    int64_t low = 1, high = rows->count;
    while (low < high) {
        int64_t middle = (low + high) >> 1;
        if (word_at(row_of(rows, middle), 0) < rules->limit)
            low = middle + 1;
        else
            high = middle;
    }
    int64_t gone = low - 1;
    if (rules->cut == CUT_OLD)
        return gone;
    /* The newest event that the floor can see must stay, however old: a latest value of any age is read from it. Without
     * an order of visibility any row may be the last one that was visible, so the search begins at the end. */
    int64_t settled = flags & MONOTONE_FLAG ? gone : rows->count - 1;
    while (settled > 0 && visible_at(rules, row_of(rows, settled)) >= rules->floor)
        settled--;
    settled -= settled > 0;
    return settled < gone ? settled : gone;
}

typedef struct {
    Py_buffer data, edges;
} Texts;

/* Bytes that a key adds to its heap, -1 if they are not there. */
static int64_t text_bytes(const Texts *texts, Py_ssize_t columns, Py_ssize_t key)
{
    int64_t size = 0;
    for (Py_ssize_t i = 0; i < columns; i++) {
        int64_t from = word_at(texts[i].edges.buf, key), to = word_at(texts[i].edges.buf, key + 1);
        if (from < 0 || to < from || to > texts[i].data.len)
            return -1;
        size += to - from;
    }
    return size;
}

typedef struct {
    const Rules *rules;
    const char *key, *bare, *rows;
    int64_t row_count;
    const Texts *texts;
    Py_ssize_t columns;
} Batch;

/* Block of one key; None if it is put together by Python, NULL with an error if the numbers do not fit the bytes. */
static PyObject *assembled(const Batch *batch, PyObject *blob, const Part *part, int64_t first, Py_ssize_t key)
{
    const Rules *rules = batch->rules;
    int64_t size = 8 * rules->words, old_heap = 0, texts = text_bytes(batch->texts, batch->columns, key);
    Rows rows = {batch->bare, batch->rows + size * first, 1, 0, rules->words};
    int fits = part->stop > first && part->stop <= batch->row_count && texts >= 0;
    if (fits && blob != Py_None) {
        fits = PyBytes_Check(blob) && part->begin >= rules->head && part->begin <= PyBytes_GET_SIZE(blob) &&
               part->kept > 0 && part->kept <= (PyBytes_GET_SIZE(blob) - part->begin) / size;
        if (fits) {
            rows.old = PyBytes_AS_STRING(blob) + part->begin, rows.kept = part->kept;
            old_heap = part->begin - rules->head;
        }
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the parts of a block lie outside what they are taken from");
        return NULL;
    }
    rows.count = rows.kept + part->stop - first;
    int64_t gone = 0;
    if (!(part->flags & HOT_FLAG) && word_at(row_of(&rows, 1), 0) < rules->limit) {
        /* Lifetimes fold what is cut into the base, revisions are cut event by event: rare, and left to Python. */
        if (rules->cut == CUT_ELSEWHERE)
            Py_RETURN_NONE;
        gone = gone_of(rules, &rows, part->flags);
    }
    int64_t left = rows.count - gone, padding = -texts & 7;
    /* A heap of mostly dead texts is written anew, which moves every offset: left to Python as well. */
    if (batch->columns && part->held > rules->garbage * (left + 15))
        Py_RETURN_NONE;
    int64_t heap = old_heap + texts + padding;
    int64_t header[HEADER] = {left - 1, part->flags, part->visible, heap, batch->columns ? part->held : 0};
    PyObject *block = PyBytes_FromStringAndSize(NULL, rules->head + heap + size * left);
    if (block == NULL)
        return NULL;
    char *at = add(PyBytes_AS_STRING(block), header, sizeof header);
    at = add(at, batch->key, rules->head - sizeof header);
    if (old_heap)
        at = add(at, PyBytes_AS_STRING(blob) + rules->head, old_heap);
    for (Py_ssize_t i = 0; i < batch->columns; i++) {
        int64_t from = word_at(batch->texts[i].edges.buf, key), to = word_at(batch->texts[i].edges.buf, key + 1);
        at = add(at, (const char *)batch->texts[i].data.buf + from, to - from);
    }
    /* Rows begin on a whole word, so that NumPy reads them where they lie. */
    memset(at, 0, padding), at += padding;
    if (gone < rows.kept)
        at = add(at, row_of(&rows, gone), size * (rows.kept - gone)), gone = rows.kept;
    add(at, row_of(&rows, gone), size * (rows.count - gone));
    return block;
}

/* Blocks of all keys, and the places of those that are left to Python. */
static PyObject *assemble_all(const Batch *batch, PyObject *blobs, const char *parts)
{
    Py_ssize_t count = PyList_GET_SIZE(blobs);
    PyObject *found = PyList_New(count), *left = PyList_New(0);
    int64_t first = 0;
    for (Py_ssize_t key = 0; key < count && found && left; key++) {
        Part part;
        memcpy(&part, parts + key * sizeof part, sizeof part);
        PyObject *block = assembled(batch, PyList_GET_ITEM(blobs, key), &part, first, key);
        if (block == Py_None) {
            PyObject *place = PyLong_FromSsize_t(key);
            if (place == NULL || PyList_Append(left, place) < 0)
                Py_CLEAR(left);
            Py_XDECREF(place);
        }
        if (block == NULL)
            Py_CLEAR(left);
        else
            PyList_SET_ITEM(found, key, block);
        first = part.stop;
    }
    if (found && left)
        return Py_BuildValue("NN", found, left);
    Py_XDECREF(found), Py_XDECREF(left);
    return NULL;
}

static int sound_rules(const Rules *rules, Py_ssize_t key, Py_ssize_t bare)
{
    return rules->words > 0 && rules->words < 1 << 20 && bare == 8 * rules->words &&
           rules->head == key + (int64_t)(8 * HEADER) && rules->cut >= CUT_OLD && rules->cut <= CUT_ELSEWHERE &&
           rules->known >= 0 && rules->known < rules->words && rules->garbage >= 0 && rules->garbage < 1 << 20;
}

/* Texts of each column: pairs of bytes and of the edges between keys; 0 with an error if they are not. */
static int open_texts(PyObject *pairs, Texts *texts, Py_ssize_t keys)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pairs); i++) {
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(pairs, i), "y*y*", &texts[i].data, &texts[i].edges))
            return 0;
        if (texts[i].edges.len != 8 * (keys + 1)) {
            PyErr_SetString(PyExc_ValueError, "texts have an edge before each key and one at the end");
            return 0;
        }
    }
    return 1;
}

/* assemble(rules, layout key, bare base row, old blocks, new rows, parts, texts) -> (blocks, places left to Python) */
static PyObject *assemble(PyObject *module, PyObject *arguments)
{
    Py_buffer rules_bytes = {0}, key = {0}, bare = {0}, rows = {0}, parts = {0};
    PyObject *blobs, *pairs, *found = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*O!y*y*O!", &rules_bytes, &key, &bare, &PyList_Type, &blobs, &rows, &parts,
                          &PyTuple_Type, &pairs))
        return NULL;
    Py_ssize_t columns = PyTuple_GET_SIZE(pairs);
    Texts *texts = PyMem_Calloc(columns + 1, sizeof *texts);
    Rules rules = {0};
    if (rules_bytes.len == sizeof rules)
        memcpy(&rules, rules_bytes.buf, sizeof rules);
    if (texts == NULL)
        PyErr_NoMemory();
    else if (!sound_rules(&rules, key.len, bare.len) || parts.len / (Py_ssize_t)sizeof(Part) != PyList_GET_SIZE(blobs))
        PyErr_SetString(PyExc_ValueError, "these are no rules for blocks");
    else if (open_texts(pairs, texts, PyList_GET_SIZE(blobs))) {
        Batch batch = {&rules, key.buf, bare.buf, rows.buf, rows.len / 8 / rules.words, texts, columns};
        found = assemble_all(&batch, blobs, parts.buf);
    }
    for (Py_ssize_t i = 0; texts && i < columns; i++)
        PyBuffer_Release(&texts[i].data), PyBuffer_Release(&texts[i].edges);
    PyMem_Free(texts);
    PyBuffer_Release(&rules_bytes), PyBuffer_Release(&key), PyBuffer_Release(&bare);
    PyBuffer_Release(&rows), PyBuffer_Release(&parts);
    return found;
}

/* gather(values, start, size) -> those bytes of each value, one after another; zeros for None */
static PyObject *gather(PyObject *module, PyObject *arguments)
{
    PyObject *given;
    Py_ssize_t start, size;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Onn", &given, &start, &size))
        return NULL;
    PyObject *values = PySequence_Fast(given, "values are a sequence"), *found = NULL;
    Py_ssize_t count = values ? PySequence_Fast_GET_SIZE(values) : 0;
    if (values && (size < 0 || (size && count > PY_SSIZE_T_MAX / size)))
        PyErr_SetString(PyExc_ValueError, "so much cannot be taken");
    else if (values)
        found = PyByteArray_FromStringAndSize(NULL, count * size);
    for (Py_ssize_t i = 0; i < count && found; i++) {
        PyObject *value = PySequence_Fast_GET_ITEM(values, i);
        char *to = PyByteArray_AS_STRING(found) + i * size;
        if (value == Py_None) {
            memset(to, 0, size);
            continue;
        }
        Py_ssize_t length = PyBytes_Check(value) ? PyBytes_GET_SIZE(value) : -1;
        Py_ssize_t from = start < 0 ? length + start : start;
        if (length < 0 || from < 0 || from > length || size > length - from) {
            PyErr_SetString(PyExc_ValueError, "a value is shorter than what is taken of it");
            Py_CLEAR(found);
        } else
            memcpy(to, PyBytes_AS_STRING(value) + from, size);
    }
    Py_XDECREF(values);
    return found;
}

#define MERGING_METHODS {"assemble", assemble, METH_VARARGS, NULL}, {"gather", gather, METH_VARARGS, NULL},
