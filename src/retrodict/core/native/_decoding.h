/* Columns out of MessagePack maps, one map per record. Twin: retrodict.features.online.write.records.
 *
 * Only what is usual is read here: maps whose keys are text, and in the columns that are wanted whole numbers, floats,
 * booleans and text, each column of one kind. Anything else is no error: the answer is None, and Python reads it. */

#include <stdint.h>
#include <string.h>

enum { KIND_ANY, KIND_INT, KIND_FLOAT, KIND_BOOL, KIND_TEXT };
enum { ODD, NIL, WHOLE, REAL, TRUTH, STRING, BYTES, ARRAY, MAP };

typedef struct {
    const unsigned char *at, *end;
} Reader;

/* One value, or the head of an array or a map: `size` is that of the text that begins at `text`, or of the array. */
typedef struct {
    int what;
    int64_t whole, size;
    double real;
    const unsigned char *text;
} Value;

typedef struct {
    const char *name;
    Py_ssize_t length, row; /* of its name; after the last record that had it */
    int kind;
    PyObject *values, *valid, *text; /* bytearrays: words, offsets or bits; bits; text */
    Py_ssize_t used, nulls;
} Column;

static uint64_t big(const unsigned char *bytes, int size)
{
    uint64_t value = 0;
    while (size--)
        value = value << 8 | *bytes++;
    return value;
}

/* Big-endian number of so many bytes; 0 if they are not there. */
static int take(Reader *reader, int size, uint64_t *found)
{
    if (reader->end - reader->at < size)
        return 0;
    *found = big(reader->at, size);
    reader->at += size;
    return 1;
}

static Value sized(Reader *reader, int what, uint64_t size)
{
    Value value = {what, 0, (int64_t)size, 0, reader->at};
    if (what == STRING || what == BYTES) {
        if (size > (uint64_t)(reader->end - reader->at))
            value.what = ODD;
        else
            reader->at += size;
    }
    return value;
}

static Value whole_value(int64_t number)
{
    return (Value){WHOLE, number, 0, 0, NULL};
}

/* Numbers and sizes that follow a byte from 0xC4 to 0xDF. */
static Value long_value(Reader *reader, unsigned char byte)
{
    /* Bytes of the number or size that follows, in the order of the format bytes from 0xC4 on. */
    static const int width[] = {1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 16, 1, 2, 4, 2, 4, 2, 4};
    uint64_t number = 0;
    float single;
    Value value = {ODD, 0, 0, 0, NULL};
    if (byte >= 0xD4 && byte <= 0xD8) /* a type and that many bytes */
        return sized(reader, BYTES, (uint64_t)width[byte - 0xC4] + 1);
    if (!take(reader, width[byte - 0xC4], &number))
        return value;
    switch (byte) {
    case 0xC4: case 0xC5: case 0xC6:
        return sized(reader, BYTES, number);
    case 0xC7: case 0xC8: case 0xC9:
        return sized(reader, BYTES, number + 1);
    case 0xCA: {
        uint32_t bits = (uint32_t)number;
        memcpy(&single, &bits, sizeof single);
        value.what = REAL, value.real = single;
        return value;
    }
    case 0xCB:
        memcpy(&value.real, &number, sizeof value.real);
        value.what = REAL;
        return value;
    /* Beyond 63 bits a number is unusual: a column of int64 cannot hold it, and Python says so. */
    case 0xCC: case 0xCD: case 0xCE: case 0xCF:
        return number > INT64_MAX ? value : whole_value((int64_t)number);
    case 0xD0:
        return whole_value((int8_t)number);
    case 0xD1:
        return whole_value((int16_t)number);
    case 0xD2:
        return whole_value((int32_t)number);
    case 0xD3:
        return whole_value((int64_t)number);
    case 0xD9: case 0xDA: case 0xDB:
        return sized(reader, STRING, number);
    default:
        return sized(reader, byte <= 0xDD ? ARRAY : MAP, number);
    }
}

static Value next_value(Reader *reader)
{
    Value value = {ODD, 0, 0, 0, NULL};
    if (reader->at >= reader->end)
        return value;
    unsigned char byte = *reader->at++;
    if (byte <= 0x7F)
        return whole_value(byte);
    if (byte >= 0xE0)
        return whole_value((int8_t)byte);
    if (byte <= 0x9F)
        return sized(reader, byte <= 0x8F ? MAP : ARRAY, byte & 0x0F);
    if (byte <= 0xBF)
        return sized(reader, STRING, byte & 0x1F);
    if (byte >= 0xC4)
        return long_value(reader, byte);
    value.what = byte == 0xC0 ? NIL : byte == 0xC1 ? ODD : TRUTH;
    value.whole = byte == 0xC3;
    return value;
}

/* Step over one value with all that is in it; 0 if it is not whole. A count of what is left takes the place of recursion:
 * nesting of any depth cannot overflow the stack. */
static int skip_value(Reader *reader)
{
    for (int64_t left = 1; left > 0; left--) {
        if (left > reader->end - reader->at) /* each takes a byte at least */
            return 0;
        Value value = next_value(reader);
        if (value.what == ODD)
            return 0;
        if (value.what == ARRAY || value.what == MAP)
            left += value.what == MAP ? 2 * value.size : value.size;
    }
    return 1;
}

static void set_bit(PyObject *bits, Py_ssize_t place)
{
    PyByteArray_AS_STRING(bits)[place >> 3] |= (char)(1 << (place & 7));
}

/* Add text to a column; 0 if it does not fit any more, -1 with an error. */
static int add_text(Column *column, const Value *value)
{
    Py_ssize_t held = PyByteArray_GET_SIZE(column->text), needed = column->used + value->size;
    /* Arrow text has 32-bit offsets. */
    if (needed > INT32_MAX)
        return 0;
    if (needed > held && PyByteArray_Resize(column->text, needed + held + 1024) < 0)
        return -1;
    memcpy(PyByteArray_AS_STRING(column->text) + column->used, value->text, value->size);
    column->used = needed;
    return 1;
}

static const int kind_of[] = {-1, -1, KIND_INT, KIND_FLOAT, KIND_BOOL, KIND_TEXT, -1, -1, -1};

/* Put a value into a column; 0 if it does not belong there, -1 with an error. */
static int put_value(Column *column, Py_ssize_t row, const Value *value)
{
    if (column->row > row) /* the record has it twice */
        return 0;
    column->row = row + 1;
    if (value->what == NIL) {
        column->nulls++;
        return 1;
    }
    int kind = kind_of[value->what];
    double real = value->real;
    if (column->kind == KIND_ANY)
        column->kind = kind;
    /* Writers send 4 for 4.0. Up to 2**53 that is the same number; beyond, Python decides. */
    if (column->kind == KIND_FLOAT && kind == KIND_INT && value->whole >= -((int64_t)1 << 53) &&
        value->whole <= (int64_t)1 << 53)
        kind = KIND_FLOAT, real = (double)value->whole;
    if (kind < 0 || kind != column->kind)
        return 0;
    set_bit(column->valid, row);
    if (kind == KIND_BOOL && value->whole)
        set_bit(column->values, row);
    if (kind == KIND_INT)
        memcpy(PyByteArray_AS_STRING(column->values) + 8 * row, &value->whole, 8);
    if (kind == KIND_FLOAT)
        memcpy(PyByteArray_AS_STRING(column->values) + 8 * row, &real, 8);
    return kind == KIND_TEXT ? add_text(column, value) : 1;
}

static Column *named(Column *columns, Py_ssize_t count, const Value *name)
{
    for (Column *column = columns; column < columns + count; column++)
        if (column->length == name->size && memcmp(column->name, name->text, name->size) == 0)
            return column;
    return NULL;
}

/* Read one record; 0 if it is unusual, -1 with an error. */
static int read_record(Column *columns, Py_ssize_t count, Py_ssize_t row, Reader reader)
{
    Value map = next_value(&reader);
    if (map.what != MAP)
        return 0;
    for (int64_t left = map.size; left > 0; left--) {
        Value name = next_value(&reader);
        if (name.what != STRING)
            return 0;
        Column *column = named(columns, count, &name);
        int usual;
        if (column == NULL)
            usual = skip_value(&reader);
        else {
            Value value = next_value(&reader);
            usual = put_value(column, row, &value);
        }
        if (usual <= 0)
            return usual;
    }
    /* Of text each row has an offset, also the rows that lack the column. */
    for (Column *column = columns; column < columns + count; column++) {
        int32_t used = (int32_t)column->used;
        if (column->row <= row)
            column->nulls++;
        memcpy(PyByteArray_AS_STRING(column->values) + 4 * (row + 1), &used, column->kind == KIND_TEXT ? 4 : 0);
    }
    return reader.at == reader.end;
}

static PyObject *zeros(Py_ssize_t size)
{
    PyObject *found = PyByteArray_FromStringAndSize(NULL, size);
    if (found != NULL)
        memset(PyByteArray_AS_STRING(found), 0, size);
    return found;
}

static int open_column(Column *column, PyObject *name, int kind, Py_ssize_t rows)
{
    column->kind = kind;
    if (kind < KIND_ANY || kind > KIND_TEXT || PyBytes_AsStringAndSize(name, (char **)&column->name, &column->length) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a column is of a kind there is");
        return 0;
    }
    column->values = zeros(8 * (rows + 1)), column->valid = zeros((rows + 7) / 8), column->text = zeros(0);
    return column->values && column->valid && column->text;
}

/* Columns as tuples of kind, number of nulls, values, bits of those that are there, and text. */
static PyObject *closed_columns(Column *columns, Py_ssize_t count)
{
    PyObject *found = PyList_New(count);
    for (Py_ssize_t i = 0; i < count && found; i++) {
        Column *column = columns + i;
        PyObject *tuple = NULL;
        if (PyByteArray_Resize(column->text, column->used) == 0)
            tuple = Py_BuildValue("inOOO", column->kind, column->nulls, column->values, column->valid, column->text);
        if (tuple == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, i, tuple);
    }
    return found;
}

/* columns(records: sequence of bytes, names: tuple of bytes, kinds: bytes) -> columns, or None if one is unusual */
static PyObject *columns(PyObject *module, PyObject *arguments)
{
    PyObject *given, *names, *found = NULL;
    const char *kinds;
    Py_ssize_t count;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!y#", &given, &PyTuple_Type, &names, &kinds, &count))
        return NULL;
    PyObject *records = PySequence_Fast(given, "records are a sequence");
    Column *all = PyMem_Calloc(count + 1, sizeof *all);
    if (records == NULL || all == NULL || count != PyTuple_GET_SIZE(names)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "each column has a name and a kind");
        PyMem_Free(all);
        Py_XDECREF(records);
        return NULL;
    }
    Py_ssize_t rows = PySequence_Fast_GET_SIZE(records);
    int usual = 1;
    for (Py_ssize_t i = 0; i < count && usual > 0; i++)
        usual = open_column(all + i, PyTuple_GET_ITEM(names, i), kinds[i], rows) ? 1 : -1;
    for (Py_ssize_t row = 0; row < rows && usual > 0; row++) {
        PyObject *record = PySequence_Fast_GET_ITEM(records, row);
        if (!PyBytes_Check(record)) {
            usual = 0;
            break;
        }
        const unsigned char *begin = (const unsigned char *)PyBytes_AS_STRING(record);
        usual = read_record(all, count, row, (Reader){begin, begin + PyBytes_GET_SIZE(record)});
    }
    if (usual > 0)
        found = closed_columns(all, count);
    for (Column *column = all; column < all + count; column++)
        Py_XDECREF(column->values), Py_XDECREF(column->valid), Py_XDECREF(column->text);
    PyMem_Free(all);
    Py_DECREF(records);
    return usual ? found : Py_NewRef(Py_None);
}

#define DECODING_METHODS {"columns", columns, METH_VARARGS, NULL},
