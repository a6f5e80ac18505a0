/* Reading a block of online state. Twin: retrodict.features.online.read.reader, which also writes the programs.
 *
 * A block is opened by _narrow.h: rows of words whose first one is the event time, and a heap of UTF-8. A program says which windows there are and
 * what each feature is made of; reading is one search per edge of a window and one difference per feature. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __int128 wide;

enum { COUNT, RATE, SHARE, SUM, MEAN, EXTREME, LATEST, SKIP }; /* of a feature that is skipped Python knows the value */
enum { LATEST_NULL, LATEST_INT, LATEST_FLOAT, LATEST_BOOL, LATEST_TEXT, LATEST_DATE };
enum { REACH_WINDOW, REACH_EITHER, REACH_ANY, REACH_AGE };
enum { LIMB_BITS = 36, DIGITS = 53, MOST_WINDOWS = 64, HOT = 2 };

#define RESTRICT -1 /* the block holds what the request may not see: it is cut by Python first */
#define BEYOND -2   /* a number that does not fit here: Python computes this block */
#define OTHER -3    /* a block of another layout */
#define PARTED -4   /* the head of a hot key: its segments are wanted, too */
#define FAILED -5

typedef struct {
    int64_t lifetime, start, hop, bounded, end;
} Window;

/* Rows [first, stop) of a window in one block. */
typedef struct {
    int64_t first, stop, lifetime;
} Place;

typedef struct {
    int64_t op, window, held, column, count, low, floats, negated, kind, flag, age, top, bottom;
} Output;

typedef struct {
    int64_t words, layout, running, flags, revised, reach, reach_window, reach_age, windows, outputs;
} Frame;

typedef struct {
    PyObject_HEAD
    Frame frame;
    Window *window;
    Output *output;
    char *layout, *bare;
    PyObject *names, *day;
    vectorcallfunc call;
} Program;

/* Down to a multiple; C divides towards zero, which for times before 1970 is up. */
static int64_t floored(int64_t value, int64_t step)
{
    int64_t quotient = value / step;
    return (quotient - (value % step < 0)) * step;
}

/* First row behind the base whose event time is not below the edge; the one after the last if there is none. */
static int64_t search(Block *block, int64_t edge)
{
    const Cells *times = column_of(block, 0);
    int64_t low = 1, high = block->count + 1;
    while (low < high) {
        int64_t middle = (low + high) >> 1;
        if (row_word(block, times, middle) < edge)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int64_t edge_of(const Window *window, int64_t at, int64_t before)
{
    return window->hop ? floored(at - before, window->hop) : at - before;
}

static Place place_of(const Window *window, Block *block, int64_t at)
{
    Place found = {0, block->count + 1, window->lifetime};
    if (window->bounded)
        found.stop = search(block, edge_of(window, at, window->end));
    if (!window->lifetime)
        found.first = search(block, edge_of(window, at, window->start));
    return found;
}

/* A running number over a window; it may have wrapped around, and then so does the difference. */
static int64_t between(Block *block, const Place *place, int64_t column)
{
    uint64_t upto = (uint64_t)cell(block, place->stop - 1, column);
    return (int64_t)(place->lifetime ? upto : upto - (uint64_t)cell(block, place->first - 1, column));
}

/* A sum as a whole number of units; 0 if it does not fit. Limbs are signed differences, so each is added to what the
 * higher ones came to: the order from the top keeps every step within the bits of the result. */
static int total(Block *block, const Place *place, const Output *output, wide *found)
{
    wide sum = 0;
    for (int64_t limb = output->count - 1; limb >= 0; limb--)
        if (__builtin_mul_overflow(sum, (wide)1 << LIMB_BITS, &sum) ||
            __builtin_add_overflow(sum, (wide)between(block, place, output->column + limb), &sum))
            return 0;
    *found = sum;
    return 1;
}

typedef struct {
    int64_t column, first, stop, word;
} Greatest;

/* Greatest word of a column among the rows of a window, of which there is at least one. What an earlier window with the
 * same end has found is not looked at again. */
static int64_t greatest(Block *block, const Output *output, const Place *place, Greatest *known)
{
    int64_t column = output->column, row = place->stop - 1;
    if (known->column == column && known->stop == place->stop && known->first >= place->first)
        row = known->first;
    else
        *known = (Greatest){column, row, place->stop, cell(block, row, column)};
    const Cells *words = column_of(block, column);
    while (row-- > place->first) {
        int64_t word = row || !block->bare ? row_word(block, words, row) : word_at(block->bare, column);
        if (output->floats ? as_double(word) > as_double(known->word) : word > known->word)
            known->word = word;
    }
    known->first = place->first;
    return known->word;
}

static PyObject *latest(const Program *self, const Output *output, Block *block, const char *heap, int64_t size)
{
    int64_t word = cell(block, block->count, output->column);
    switch (output->kind) {
    case LATEST_INT:
        return PyLong_FromLongLong(word);
    case LATEST_FLOAT:
        return PyFloat_FromDouble(as_double(word));
    case LATEST_BOOL:
        return PyBool_FromLong(word != 0);
    case LATEST_TEXT: {
        /* Offset and length come from the store, so they are checked here and not when the program was made. */
        int64_t begin = word >> 32, length = word & 0xFFFFFFFF;
        if (begin < 0 || begin + length > size) {
            PyErr_SetString(PyExc_ValueError, "a text lies outside its block");
            return NULL;
        }
        return PyUnicode_DecodeUTF8(heap + begin, length, "surrogatepass");
    }
    case LATEST_DATE: {
        PyObject *ordinal = PyLong_FromLongLong(word + output->low);
        PyObject *found = ordinal ? PyObject_CallOneArg(self->day, ordinal) : NULL;
        Py_XDECREF(ordinal);
        return found;
    }
    default:
        return Py_NewRef(Py_None);
    }
}

/* Value of one feature made of totals; NULL without an error is None, and `beyond` says that Python has to do it. */
static PyObject *aggregate(const Output *output, Block *block, const Place *place, Greatest *known, int *beyond)
{
    int64_t held = between(block, place, output->held);
    wide sum;
    double number;
    if (output->op == COUNT)
        return PyLong_FromLongLong(held);
    if (output->op == RATE) {
        /* Beyond 53 bits the product is no double, and Python divides whole numbers correctly rounded. */
        *beyond = held < 0 || held >= ((int64_t)1 << DIGITS) / output->top;
        return *beyond ? NULL : PyFloat_FromDouble((double)(held * output->top) / (double)output->bottom);
    }
    if (!held)
        return NULL;
    if (output->op == SHARE)
        return PyFloat_FromDouble((double)between(block, place, output->column) / (double)held);
    if (output->op == EXTREME) {
        int64_t word = greatest(block, output, place, known);
        if (!output->floats)
            return PyLong_FromLongLong(output->negated ? ~word : word);
        return PyFloat_FromDouble(output->negated ? 0.0 - as_double(word) : as_double(word));
    }
    if (!total(block, place, output, &sum)) {
        *beyond = 1;
        return NULL;
    }
    if (output->op == SUM && !output->floats) {
        *beyond = sum < INT64_MIN || sum > INT64_MAX; /* Python refuses it, by name */
        return *beyond ? NULL : PyLong_FromLongLong((int64_t)sum);
    }
    /* Rounded once, by the cast; a power of two changes no digit, as exponents near the limits have no program. */
    number = output->floats ? ldexp((double)sum, (int)output->low) : (double)sum;
    return PyFloat_FromDouble(output->op == MEAN ? number / (double)held : number);
}

/* Number of events within reach, or why there is none. */
static int64_t read_block(const Program *self, const char *data, Py_ssize_t size, int64_t at, PyObject *out,
                          PyObject *old, int settled)
{
    const Frame *frame = &self->frame;
    Place place[MOST_WINDOWS];
    int64_t layout = frame->layout, flags, visible, heap, heap_size;
    int narrow = size > 8 && data[8] & NARROW;
    if (size >= layout + (narrow ? SHORT_HEADER : 8 * HEADER) &&
        memcmp(data + (narrow ? size - layout : 8 * HEADER), self->layout, layout))
        return OTHER;
    Block block;
    if (!open_block(&block, data, size, frame->words, layout, self->bare)) {
        PyErr_SetString(PyExc_ValueError, "a block is cut off");
        return FAILED;
    }
    int64_t rows = block.count;
    flags = word_at(data, 1), visible = narrow ? flags >> 8 : word_at(data, 2);
    heap = narrow ? block.rows + block.size * (rows + !block.bare) : 8 * HEADER + layout;
    heap_size = narrow ? size - layout - heap : block.rows - heap;
    /* `settled`: the caller has cut the block already, or put it together from segments. */
    if (!settled && flags & HOT)
        return PARTED;
    if (!settled && (frame->revised || visible >= at))
        return RESTRICT;
    for (int64_t i = 0; i < frame->windows; i++)
        place[i] = place_of(self->window + i, &block, at);
    Greatest known = {-1, 0, 0, 0};
    for (int64_t i = 0; i < frame->outputs; i++) {
        const Output *output = self->output + i;
        PyObject *name = PyTuple_GET_ITEM(self->names, i), *value = NULL;
        int beyond = 0;
        if (output->op < LATEST)
            value = aggregate(output, &block, place + output->window, &known, &beyond);
        else if (output->op == SKIP)
            value = Py_NewRef(Py_None);
        else if (rows && (output->age < 0 || at - cell(&block, rows, 0) <= output->age)) {
            if (cell(&block, rows, frame->flags + output->flag / 62) >> (output->flag % 62) & 1)
                value = latest(self, output, &block, data + heap, heap_size);
        } else if (output->age >= 0 && PySet_Add(old, name) < 0)
            return FAILED;
        /* A value that cannot be computed here gives up the whole block: half a row is never left in `out`, since the
         * reader in Python writes all of it anew. */
        if (beyond || (value == NULL && PyErr_Occurred())) {
            Py_XDECREF(value);
            return beyond ? BEYOND : FAILED;
        }
        if (value == NULL)
            value = Py_NewRef(Py_None);
        int failed = PyDict_SetItem(out, name, value);
        Py_DECREF(value);
        if (failed)
            return FAILED;
    }
    if (frame->reach == REACH_ANY)
        return rows > 0;
    if (frame->reach == REACH_AGE)
        return rows > 0 && at - cell(&block, rows, 0) <= frame->reach_age;
    int64_t seen = between(&block, place + frame->reach_window, frame->running);
    return frame->reach == REACH_EITHER && seen < (rows > 0) ? 1 : seen;
}

/* Called with (block, time, values to fill in, columns too old, whether all of the block is visible). */
static PyObject *program_call(PyObject *callable, PyObject *const *arguments, size_t count, PyObject *names)
{
    Program *self = (Program *)callable;
    if (PyVectorcall_NARGS(count) != 5 || names != NULL || !PyDict_Check(arguments[2]) || !PySet_Check(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "a program is called with (block, at, values, expired, settled)");
        return NULL;
    }
    int64_t at = PyLong_AsLongLong(arguments[1]);
    int settled = PyObject_IsTrue(arguments[4]);
    if ((at == -1 && PyErr_Occurred()) || settled < 0)
        return NULL;
    Py_buffer block;
    if (PyObject_GetBuffer(arguments[0], &block, PyBUF_SIMPLE) < 0)
        return NULL;
    int64_t found = read_block(self, block.buf, block.len, at, arguments[2], arguments[3], settled);
    PyBuffer_Release(&block);
    return found == FAILED ? NULL : PyLong_FromLongLong(found);
}

/* Whether no place that a program names lies outside a row. Checked once, so that reading a block need not. */
static int sound(const Program *self)
{
    const Frame *frame = &self->frame;
    if (frame->words < 2 || frame->windows < 0 || frame->windows > MOST_WINDOWS ||
        frame->flags < 0 || frame->flags >= frame->words || frame->running < 0 || frame->running >= frame->words ||
        frame->outputs != PyTuple_GET_SIZE(self->names) || frame->reach < REACH_WINDOW || frame->reach > REACH_AGE)
        return 0;
    if (frame->reach <= REACH_EITHER && (frame->reach_window < 0 || frame->reach_window >= frame->windows))
        return 0;
    for (int64_t i = 0; i < frame->windows; i++)
        if (self->window[i].hop < 0)
            return 0;
    for (int64_t i = 0; i < frame->outputs; i++) {
        const Output *output = self->output + i;
        int64_t last = output->column + (output->op == SUM || output->op == MEAN ? output->count - 1 : 0);
        if (output->op < COUNT || output->op > SKIP || output->column < 0 || last < output->column || last >= frame->words || output->held < 0 ||
            output->held >= frame->words || output->flag < 0 || output->flag / 62 + frame->flags >= frame->words)
            return 0;
        if (output->op < LATEST && (output->window < 0 || output->window >= frame->windows))
            return 0;
        if (output->op == RATE && (output->top < 1 || output->bottom < 1))
            return 0;
    }
    return 1;
}

/* Program(words: bytes, layout: bytes, bare base row: bytes, names: tuple of str, day: callable) */
static PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    const char *words, *layout, *bare;
    Py_ssize_t size, layout_size, bare_size;
    PyObject *names, *day;
    (void)keywords;
    if (!PyArg_ParseTuple(arguments, "y#y#y#O!O", &words, &size, &layout, &layout_size, &bare, &bare_size,
                          &PyTuple_Type, &names, &day))
        return NULL;
    Program *self = (Program *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->names = Py_NewRef(names), self->day = Py_NewRef(day), self->call = program_call;
    Frame *frame = &self->frame;
    size -= sizeof *frame;
    if (size >= 0) {
        memcpy(frame, words, sizeof *frame);
        size_t windows = (size_t)frame->windows * sizeof(Window), outputs = (size_t)frame->outputs * sizeof(Output);
        if (frame->windows >= 0 && frame->windows <= MOST_WINDOWS && frame->outputs >= 0 &&
            frame->outputs <= PyTuple_GET_SIZE(names) && (size_t)size == windows + outputs &&
            frame->layout == layout_size && bare_size % 8 == 0 && frame->words == bare_size / 8) {
            self->window = PyMem_Malloc(windows + 1), self->output = PyMem_Malloc(outputs + 1);
            self->layout = PyMem_Malloc((size_t)layout_size + 1), self->bare = PyMem_Malloc((size_t)bare_size + 1);
            if (self->window == NULL || self->output == NULL || self->layout == NULL || self->bare == NULL) {
                Py_DECREF(self);
                return PyErr_NoMemory();
            }
            memcpy(self->window, words + sizeof *frame, windows);
            memcpy(self->output, words + sizeof *frame + windows, outputs);
            memcpy(self->layout, layout, (size_t)layout_size), memcpy(self->bare, bare, (size_t)bare_size);
            if (sound(self))
                return (PyObject *)self;
        }
    }
    Py_DECREF(self);
    PyErr_SetString(PyExc_ValueError, "this is no program for blocks");
    return NULL;
}

static void program_free(PyObject *object)
{
    Program *self = (Program *)object;
    Py_XDECREF(self->names), Py_XDECREF(self->day);
    PyMem_Free(self->window), PyMem_Free(self->output);
    PyMem_Free(self->layout), PyMem_Free(self->bare);
    Py_TYPE(object)->tp_free(object);
}

static PyTypeObject ProgramType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "retrodict.core.native._kernel.Program",
    .tp_basicsize = sizeof(Program),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = PyDoc_STR("How blocks of one layout are read for one view."),
    .tp_new = program_new,
    .tp_dealloc = program_free,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Program, call),
};

static int add_blocks(PyObject *module)
{
    return PyModule_AddType(module, &ProgramType);
}
