/* Rows of a block, wide or narrow. Twin: retrodict.features.online.state.narrow, which says what narrow rows are.
 *
 * Every row has the same size and each column its place in it, so any word of any row is found without another: one load,
 * a shift, a multiplication. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { HEADER = 5, SHORT_HEADER = 16, MOST_WORDS = 256 };
enum { NARROW = 4, BARE = 8 };
enum { LINEAR = 127, KIND = 128 }; /* in place of a number of bits, and beside it */
enum { NO_INT = 1, NO_FLOAT = 2, SHARED = 4, PAIRED = 8, SCALE = 4, SCALES = 7 };

/* What a word of a column is made of, alike for wide and narrow rows: `least + slope * row + factor * bits`, or what
 * the kind makes of that. The bits of row 0 are in the eight bytes at `place`. */
typedef struct {
    int64_t place, step;
    uint64_t least, slope, factor, mask;
    unsigned char shift, kind, low;
} Cells;

/* Rows begin with the base; of one that lost nothing `bare` has the words, and the rows do not. */
typedef struct {
    const char *data, *bare;
    int64_t words, count, rows, size;
    int narrow;
    Cells wide, column[MOST_WORDS];
} Block;

static const double SCALE_OF[SCALES + 1] = {1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};

/* Values of a store need not lie on whole words: a cast to int64_t * would be undefined there, and memcpy compiles to
 * the same single load. */
static int64_t word_at(const char *row, int64_t column)
{
    int64_t word;
    memcpy(&word, row + 8 * column, sizeof word);
    return word;
}

static char *add(char *at, const void *bytes, size_t size)
{
    if (size)
        memcpy(at, bytes, size);
    return at + size;
}

static double as_double(int64_t word)
{
    double value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static int64_t as_word(double value)
{
    int64_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

static int64_t nothing_of(int kind)
{
    return kind & NO_FLOAT ? as_word(-INFINITY) : INT64_MIN;
}

static uint64_t mask_of(int width)
{
    return width ? UINT64_MAX >> (64 - width) : 0;
}

/* Whole number of so few bytes, without or with a sign; whoever asks has looked that eight are there. */
static uint64_t number_at(const char *from, int bytes)
{
    return (uint64_t)word_at(from, 0) & mask_of(8 * bytes);
}

static uint64_t signed_at(const char *from, int bytes)
{
    uint64_t sign = bytes ? (uint64_t)1 << (8 * bytes - 1) : 0;
    return (number_at(from, bytes) ^ sign) - sign;
}

/* Bytes of a row; never none, so that a number of rows is not taken on trust. */
static int64_t bytes_of_row(int64_t bits)
{
    return bits ? (bits + 7) >> 3 : 1;
}

/* Columns of narrow rows, described from `from` on; behind `end` there are eight bytes more. Where the descriptions end,
 * NULL if they are none. */
static const char *open_columns(Block *block, const char *from, const char *end, int bare)
{
    int64_t bit = 0;
    for (int64_t i = 0; i < block->words; i++) {
        Cells *one = block->column + i;
        if (end - from < 2)
            return NULL;
        int width = (unsigned char)from[0], least = from[1] & 15, factor = (unsigned char)from[1] >> 4, shared = 0;
        int kind = width & KIND ? (unsigned char)from[2] : 0;
        from += width & KIND ? 3 : 2, width &= ~KIND;
        if (kind & SHARED)
            shared = (unsigned char)*from++;
        one->low = kind & PAIRED ? (unsigned char)*from++ : 0;
        if (least > 8 || factor > 8 || end - from < least + factor || (width > 64 && width != LINEAR) || one->low > 32 ||
            kind >> SCALE > SCALES || (kind & SHARED && shared >= i))
            return NULL;
        one->least = signed_at(from, least), one->factor = 1 + number_at(from + least, factor);
        one->kind = (unsigned char)kind, one->slope = width == LINEAR ? one->factor : 0;
        one->least -= bare ? one->slope : 0; /* row 0 is not there, and row 1 has the least */
        from += least + factor;
        int own = width == LINEAR || kind & SHARED ? 0 : width;
        if ((bit & 7) + own > 64)
            bit = (bit + 7) & ~(int64_t)7;
        one->place = kind & SHARED ? block->column[shared].place : bit >> 3;
        one->shift = kind & SHARED ? block->column[shared].shift : bit & 7;
        one->mask = width == LINEAR ? 0 : mask_of(width);
        if (kind & SHARED && one->mask != block->column[shared].mask)
            return NULL;
        bit += own;
    }
    block->size = bytes_of_row(bit);
    return from;
}

/* A stored block as it lies in `size` bytes, `layout` of them its layout; 0 if it is not all there, or of more words. */
static int open_block(Block *block, const char *data, int64_t size, int64_t words, int64_t layout, const char *bare)
{
    if (layout < 8 || size < layout + SHORT_HEADER || words < 1)
        return 0;
    block->data = data, block->bare = NULL, block->words = words;
    block->narrow = (data[8] & NARROW) != 0;
    if (!block->narrow) {
        int64_t head = 8 * HEADER + layout, heap = size < head ? -1 : word_at(data, 3);
        if (heap < 0 || heap > size - head)
            return 0;
        block->count = word_at(data, 0), block->rows = head + heap, block->size = 8 * words;
        block->wide = (Cells){0, 8 * words, 0, 0, 1, UINT64_MAX, 0, 0, 0};
        return block->count >= 0 && (size - head - heap) / 8 / words > block->count;
    }
    uint32_t count, heap;
    memcpy(&count, data, sizeof count), memcpy(&heap, data + 4, sizeof heap);
    int64_t end = size - layout - (int64_t)heap, bare_base = (data[8] & BARE) != 0;
    if (words > MOST_WORDS || end < SHORT_HEADER)
        return 0;
    const char *rows = open_columns(block, data + SHORT_HEADER, data + end, (int)bare_base);
    if (rows == NULL)
        return 0;
    block->count = count, block->rows = rows - data, block->bare = bare_base ? bare : NULL;
    int64_t first = block->rows - (bare_base ? block->size : 0); /* where row 0 is, or would be */
    for (int64_t i = 0; i < words; i++)
        block->column[i].place += first, block->column[i].step = block->size;
    /* The layout behind the last row has eight bytes, so that a whole word may be loaded wherever a column begins. */
    return block->count > 0 && block->rows + block->size * (block->count + !bare_base) == end;
}

/* Column of a block; of a wide one it holds until the next is asked for. */
static inline const Cells *column_of(Block *block, int64_t column)
{
    if (block->narrow)
        return block->column + column;
    block->wide.place = block->rows + 8 * column;
    return &block->wide;
}

static int64_t word_of_kind(const Cells *column, uint64_t bits, uint64_t word)
{
    if (column->kind & (NO_INT | NO_FLOAT) && bits == column->mask)
        return nothing_of(column->kind);
    if (column->kind & PAIRED)
        return (int64_t)(column->least + (bits & mask_of(column->low)) + (bits >> column->low << 32));
    return column->kind >> SCALE ? as_word((double)(int64_t)word / SCALE_OF[column->kind >> SCALE]) : (int64_t)word;
}

/* Word of a row that is stored. */
static inline int64_t row_word(const Block *block, const Cells *column, int64_t row)
{
    uint64_t bits = (uint64_t)word_at(block->data + (column->place + row * column->step), 0) >> column->shift & column->mask;
    uint64_t word = column->least + column->slope * (uint64_t)row + column->factor * bits;
    return column->kind ? word_of_kind(column, bits, word) : (int64_t)word;
}

static inline int64_t cell(Block *block, int64_t row, int64_t column)
{
    return row || !block->bare ? row_word(block, column_of(block, column), row) : word_at(block->bare, column);
}

/* Words of the rows that are stored, at one place of wide rows. `one` is a copy: what is written cannot change it. */
static void widen_column(const Block *block, const Cells one, char *to)
{
    int64_t row = block->bare != NULL, step = 8 * block->words;
    uint64_t word = one.least + one.slope * (uint64_t)row;
    const char *from = block->data + one.place + row * one.step;
    to += row * step;
    for (; row <= block->count; row++, to += step, from += one.step) {
        if (one.kind)
            word = (uint64_t)row_word(block, &one, row);
        else if (one.mask)
            word = one.least + one.factor * ((uint64_t)word_at(from, 0) >> one.shift & one.mask);
        memcpy(to, &word, sizeof word);
        word += one.slope;
    }
}

/* widen(block: bytes, bytes of its layout: int, bare base row: bytes) -> bytes: the same block with wide rows. */
static PyObject *widen(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    Py_ssize_t layout, bare_size;
    const char *bare;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*ny#", &data, &layout, &bare, &bare_size))
        return NULL;
    Block block;
    PyObject *wide = NULL;
    const char *from = data.buf;
    int64_t words = bare_size / 8;
    if (!open_block(&block, from, data.len, words, layout, bare))
        PyErr_SetString(PyExc_ValueError, "a block is cut off");
    else if (!block.narrow)
        wide = PyBytes_FromStringAndSize(from, data.len);
    else {
        uint32_t heap;
        memcpy(&heap, from + 4, sizeof heap);
        int64_t padded = ((int64_t)heap + 7) & ~(int64_t)7, flags = word_at(from, 1);
        int64_t header[HEADER] = {block.count, flags & 3, flags >> 8, padded, heap ? block.count : 0};
        wide = PyBytes_FromStringAndSize(NULL, 8 * HEADER + layout + padded + 8 * words * (block.count + 1));
        if (wide != NULL) {
            char *to = PyBytes_AS_STRING(wide);
            memcpy(to, header, sizeof header), to += sizeof header;
            memcpy(to, from + data.len - layout, layout), to += layout;
            memset(to, 0, padded), memcpy(to, from + data.len - layout - heap, heap), to += padded;
            if (block.bare)
                memcpy(to, bare, 8 * words);
            for (int64_t column = 0; column < words; column++)
                widen_column(&block, *column_of(&block, column), to + 8 * column);
        }
    }
    PyBuffer_Release(&data);
    return wide;
}
