/* Rows of a block, wide or narrow. Twin: retrodict.features.online.state.narrow, which says what narrow rows are.
 *
 * A narrow word is its distance from the least of its column, without the zeros that all of them end in, in as few bytes
 * as the greatest needs. So every row has the same size, and any word of any row is found without looking at another. */

#include <stdint.h>
#include <string.h>

enum { NARROW = 4, MOST_WORDS = 256 };

/* Row 0 is the base; `least` is NULL if the rows are wide. `offset` is where a column begins in a row. */
typedef struct {
    const char *base, *rows, *least;
    const unsigned char *width, *shift;
    int64_t words, count, size;
    uint16_t offset[MOST_WORDS];
} Block;

/* Values of a store need not lie on whole words: a cast to int64_t * would be undefined there, and memcpy compiles to
 * the same single load. */
static int64_t word_at(const char *row, int64_t column)
{
    int64_t word;
    memcpy(&word, row + 8 * column, sizeof word);
    return word;
}

/* Bytes of what says how wide the columns are. */
static int64_t measures(int64_t words)
{
    return 8 * words + (2 * words + 7) / 8 * 8;
}

/* Block whose base row is at `data`; 0 if the rows are not all there. */
static int open_rows(Block *block, const char *data, int64_t left, int64_t words, int64_t count, int narrow)
{
    block->base = data, block->least = NULL, block->words = words, block->count = count;
    if (count < 0 || left / 8 / words < 1)
        return 0;
    if (!narrow) {
        block->rows = data + 8 * words, block->size = 8 * words;
        return left / 8 / words > count;
    }
    if (words > MOST_WORDS || left < 8 * words + measures(words) + 8)
        return 0;
    block->least = data + 8 * words;
    block->width = (const unsigned char *)block->least + 8 * words, block->shift = block->width + words;
    block->size = 0;
    for (int64_t i = 0; i < words; i++) {
        if (block->width[i] > 8 || block->shift[i] > 63)
            return 0;
        block->offset[i] = (uint16_t)block->size;
        block->size += block->width[i];
    }
    block->rows = block->least + measures(words);
    return block->size > 0 && (left - 8 * words - measures(words) - 8) / block->size >= count;
}

/* One column of the rows behind the base: what a word is made of, alike for wide and narrow rows. */
typedef struct {
    const char *base, *first;
    int64_t step;
    uint64_t least, mask;
    int shift;
} Cells;

static Cells column_of(const Block *block, int64_t column)
{
    if (block->least == NULL)
        return (Cells){block->base + 8 * column, block->base + 8 * column, block->size, 0, UINT64_MAX, 0};
    int width = block->width[column];
    return (Cells){block->base + 8 * column, block->rows - block->size + block->offset[column], block->size,
                    (uint64_t)word_at(block->least, column), width ? UINT64_MAX >> (64 - 8 * width) : 0,
                    block->shift[column]};
}

/* Word of a row behind the base. After the rows are eight bytes of nothing, so that a whole word may be loaded wherever
 * a narrow one begins. */
static inline int64_t row_word(const Cells *column, int64_t row)
{
    return (int64_t)(column->least + (((uint64_t)word_at(column->first + row * column->step, 0) & column->mask)
                                      << column->shift));
}

static int64_t cell(const Block *block, int64_t row, int64_t column)
{
    Cells one = column_of(block, column);
    return row ? row_word(&one, row) : word_at(one.base, 0);
}

/* widen(block: bytes, head: int, words: int) -> bytes: the same block with wide rows. */
static PyObject *widen(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    Py_ssize_t head, words;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nn", &data, &head, &words))
        return NULL;
    Block block;
    PyObject *wide = NULL;
    const char *from = data.buf;
    int64_t heap = head >= 40 && data.len >= head ? word_at(from, 3) : -1;
    if (words < 1 || heap < 0 || heap > data.len - head ||
        !open_rows(&block, from + head + heap, data.len - head - heap, words, word_at(from, 0), word_at(from, 1) & NARROW))
        PyErr_SetString(PyExc_ValueError, "a block is cut off");
    else if ((wide = PyBytes_FromStringAndSize(NULL, head + heap + 8 * words * (block.count + 1))) != NULL) {
        char *to = PyBytes_AS_STRING(wide);
        memcpy(to, from, head + heap + 8 * words);
        int64_t flags = word_at(from, 1) & ~(int64_t)NARROW;
        memcpy(to + 8, &flags, sizeof flags);
        to += head + heap;
        for (int64_t column = 0; column < words; column++) {
            const Cells one = column_of(&block, column);
            const char *next = one.first + one.step;
            char *place = to + 8 * (words + column);
            for (int64_t row = 0; row < block.count; row++, next += one.step, place += 8 * words) {
                uint64_t word = one.least + (((uint64_t)word_at(next, 0) & one.mask) << one.shift);
                memcpy(place, &word, sizeof word);
            }
        }
    }
    PyBuffer_Release(&data);
    return wide;
}

/* narrow(block: bytes, head: int, words: int) -> bytes: the same block with narrow rows; itself if that is no shorter. */
static PyObject *narrow(PyObject *module, PyObject *arguments)
{
    PyObject *data;
    Py_ssize_t head, words;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Snn", &data, &head, &words))
        return NULL;
    Block block;
    const char *from = PyBytes_AS_STRING(data);
    int64_t length = PyBytes_GET_SIZE(data), heap = head >= 40 && length >= head ? word_at(from, 3) : -1;
    if (heap >= 0 && (word_at(from, 1) & NARROW || words > MOST_WORDS || !word_at(from, 0)))
        return Py_NewRef(data);
    if (words < 1 || heap < 0 || heap > length - head ||
        !open_rows(&block, from + head + heap, length - head - heap, words, word_at(from, 0), 0)) {
        PyErr_SetString(PyExc_ValueError, "a block is cut off");
        return NULL;
    }
    int64_t least[MOST_WORDS], size = 0;
    unsigned char width[MOST_WORDS], shift[MOST_WORDS];
    for (int64_t column = 0; column < words; column++) {
        const char *place = block.rows + 8 * column;
        int64_t first = word_at(place, 0), low = first, high = first;
        uint64_t distances = 0;
        for (int64_t row = 0; row < block.count; row++, place += block.size) {
            int64_t word = word_at(place, 0);
            low = word < low ? word : low, high = word > high ? word : high;
            distances |= (uint64_t)word - (uint64_t)first; /* ends in as many zeros as distances from the least do */
        }
        least[column] = low, width[column] = 0;
        shift[column] = distances ? (unsigned char)__builtin_ctzll(distances) : 0;
        for (distances = ((uint64_t)high - (uint64_t)low) >> shift[column]; distances; distances >>= 8)
            width[column]++;
        size += width[column];
    }
    int64_t whole = head + heap + 8 * words + measures(words) + block.count * size + 8;
    if (size == 0 || whole >= length)
        return Py_NewRef(data);
    PyObject *shorter = PyBytes_FromStringAndSize(NULL, whole);
    if (shorter == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(shorter);
    memset(to, 0, whole);
    memcpy(to, from, head + heap + 8 * words);
    int64_t flags = word_at(from, 1) | NARROW;
    memcpy(to + 8, &flags, sizeof flags);
    to += head + heap + 8 * words;
    memcpy(to, least, 8 * words);
    memcpy(to + 8 * words, width, words);
    memcpy(to + 9 * words, shift, words);
    to += measures(words);
    const char *place = block.rows;
    for (int64_t row = 0; row < block.count; row++, place += block.size)
        for (int64_t column = 0; column < words; column++) {
            uint64_t word = ((uint64_t)word_at(place, column) - (uint64_t)least[column]) >> shift[column];
            memcpy(to, &word, sizeof word); /* little-endian: zeros follow, where the next word goes */
            to += width[column];
        }
    return shorter;
}

#define NARROW_METHODS                                                                                                 \
    {"widen", widen, METH_VARARGS, NULL}, {"narrow", narrow, METH_VARARGS, NULL},
