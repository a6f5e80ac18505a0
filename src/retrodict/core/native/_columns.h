/* Columns of narrow rows, as they are stored. Twin: retrodict.features.online.state.narrow. What a column is stored as is
 * tried out on its words, and only what gives them back bit for bit is taken. */

/* Stored that is stored: bits of its rows (at `bits`, if it has any) and what makes words of them. */
typedef struct {
    uint64_t least, factor, *bits;
    int width, kind, shared, low, has_bits;
} Stored;

static int bits_of(uint64_t number)
{
    return number ? 64 - __builtin_clzll(number) : 0;
}

static int bytes_of_signed(int64_t number)
{
    return number ? bits_of((uint64_t)(number < 0 ? ~number : number)) / 8 + 1 : 0;
}

/* Divide some numbers by a prime as often as all of them can be; the power of it. Of an odd number the inverse modulo
 * 2**64 gives the quotient if there is one, and else more than any. */
static uint64_t divided(uint64_t *number, int64_t count, uint64_t prime, uint64_t inverse)
{
    for (uint64_t power = 1;; power *= prime) {
        for (int64_t row = 0; row < count; row++)
            if (number[row] * inverse > UINT64_MAX / prime)
                return power;
        for (int64_t row = 0; row < count; row++)
            number[row] *= inverse;
    }
}

/* Least and greatest of some numbers. */
typedef struct {
    int64_t low, high;
} Range;

static Range range_of(const int64_t *number, const int64_t *word, int64_t count, int kind)
{
    Range range = {INT64_MAX, INT64_MIN};
    for (int64_t row = 0; row < count; row++)
        if (!kind || word[row] != nothing_of(kind)) {
            range.low = number[row] < range.low ? number[row] : range.low;
            range.high = number[row] > range.high ? number[row] : range.high;
        }
    return range;
}

/* Column of numbers in a range, but for rows with the word of nothing, whose bits are all ones (a kind of 0: there are
 * none); 0 if that is too much. */
static int measured(Stored *column, const int64_t *number, const int64_t *word, int64_t count, int kind, Range range)
{
    uint64_t any = 0, *bits = column->bits, greatest = (uint64_t)range.high - (uint64_t)range.low;
    for (int64_t row = 0; row < count; row++)
        any |= bits[row] = (uint64_t)number[row] - (uint64_t)range.low;
    if (kind) {
        any = 0;
        for (int64_t row = 0; row < count; row++)
            any |= bits[row] = word[row] == nothing_of(kind) ? 0 : bits[row];
    }
    column->least = (uint64_t)range.low, column->factor = 1, column->kind = kind, column->has_bits = 1;
    if (any) {
        int zeros = __builtin_ctzll(any);
        for (int64_t row = 0; row < count && zeros; row++)
            bits[row] >>= zeros;
        column->factor = ((uint64_t)1 << zeros) * divided(bits, count, 3, 0xAAAAAAAAAAAAAAAB) *
                         divided(bits, count, 5, 0xCCCCCCCCCCCCCCCD);
    }
    greatest /= column->factor;
    if (kind && greatest == UINT64_MAX)
        return 0;
    column->width = bits_of(greatest + (kind != 0));
    for (int64_t row = 0; row < count && kind; row++)
        if (word[row] == nothing_of(kind))
            bits[row] = mask_of(column->width);
    return 1;
}

/* Whole numbers that divided by a power of ten are these floats; the kind of that, 0 if there are none. */
static int over_power_of_ten(int64_t *number, const int64_t *word, int64_t count, int missing)
{
    const double most = 9007199254740992.0, first = fabs(as_double(word[0])), micros = first * 1e6;
    /* Most columns are none of these: a small number has all its digits in millionths, or it has none there. */
    if (first != 0 && (!missing || word[0] != nothing_of(missing)) && micros < most / 8 && rint(micros) / 1e6 != first)
        return 0;
    for (int power = 1; power <= SCALES; power++) {
        int64_t row = 0, nothing = nothing_of(missing);
        for (; row < count; row++) {
            double whole = rint(as_double(word[row]) * SCALE_OF[power]);
            int fits = fabs(whole) < most;
            number[row] = fits ? (int64_t)whole : 0;
            if (!(missing && word[row] == nothing) &&
                !(fits && as_word((double)number[row] / SCALE_OF[power]) == word[row]))
                break;
        }
        if (row == count)
            return power << SCALE;
    }
    return 0;
}

static void measure_text(Stored *column, const int64_t *word, int64_t count)
{
    int64_t high = INT64_MAX, low = INT64_MAX;
    uint64_t longest = 0, greatest = 0;
    for (int64_t row = 0; row < count; row++) {
        high = word[row] >> 32 < high ? word[row] >> 32 : high;
        low = (word[row] & UINT32_MAX) < low ? word[row] & UINT32_MAX : low;
    }
    for (int64_t row = 0; row < count; row++)
        longest |= (uint64_t)((word[row] & UINT32_MAX) - low);
    column->low = bits_of(longest), column->kind = PAIRED, column->has_bits = 1;
    for (int64_t row = 0; row < count; row++) {
        column->bits[row] = (uint64_t)((word[row] >> 32) - high) << column->low | (uint64_t)((word[row] & UINT32_MAX) - low);
        greatest |= column->bits[row];
    }
    column->width = bits_of(greatest), column->factor = 1;
    column->least = ((uint64_t)high << 32) + (uint64_t)low;
}

/* Shortest way to store a column whose words have a range, and a kind of nothing among them or 0; `spare` has room for
 * what is tried. */
static void measure(Stored *column, const int64_t *word, int64_t count, int text, Range range, int kind, int64_t *spare)
{
    uint64_t step = count > 1 ? (uint64_t)word[1] - (uint64_t)word[0] : 0, *bits = column->bits;
    int alike = 1;
    for (int64_t row = 1; row < count && alike; row++)
        alike = (uint64_t)word[row] - (uint64_t)word[row - 1] == step;
    *column = (Stored){(uint64_t)word[0], 1, bits, 0, 0, 0, 0, 0};
    if (alike) {
        if (step)
            column->factor = step, column->width = LINEAR;
        return;
    }
    if (text) {
        measure_text(column, word, count);
        return;
    }
    if (!kind || !measured(column, word, word, count, kind, range_of(word, word, count, kind)))
        measured(column, word, word, count, 0, range);
    int scale = column->width > 16 ? over_power_of_ten(spare, word, count, kind) : 0;
    if (scale) {
        Stored decimal = *column;
        decimal.bits = (uint64_t *)spare + count;
        if (measured(&decimal, spare, word, count, kind, range_of(spare, word, count, kind)) &&
            decimal.width < column->width) {
            memcpy(bits, decimal.bits, 8 * (size_t)count);
            decimal.bits = bits, decimal.kind |= scale, *column = decimal;
        }
    }
}

/* Where the texts of a block go, each once. */
typedef struct {
    int64_t *word, *slot, room, size;
    char *heap;
} Once;

static uint64_t hash_of(const char *text, int64_t size)
{
    uint64_t hash = (uint64_t)size, word;
    for (; size > 0; text += 8, size -= 8) {
        word = 0;
        memcpy(&word, text, size < 8 ? (size_t)size : 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
    }
    return hash;
}

/* Word of a text, which is added to the heap if it is not there yet. */
static int64_t text_once(Once *once, const char *text, int64_t size)
{
    for (uint64_t at = hash_of(text, size);; at++) {
        int64_t *slot = once->slot + (at & (uint64_t)(once->room - 1));
        if (*slot < 0) {
            *slot = once->size << 32 | size;
            memcpy(once->heap + once->size, text, (size_t)size);
            once->size += size;
            return *slot;
        }
        if ((*slot & UINT32_MAX) == size && memcmp(once->heap + (*slot >> 32), text, (size_t)size) == 0)
            return *slot;
    }
}

/* Words of the columns of texts with each text once in a heap of its own; 0 with an error. */
static int put_texts_once(Once *once, Block *block, const char *heap, int64_t heap_size, const char *texts, int64_t count)
{
    int64_t total = 0, rows = block->count + 1;
    if (!count)
        return 1;
    once->room = 16;
    while (once->room < 2 * count * rows)
        once->room *= 2;
    once->word = PyMem_Malloc(8 * (size_t)(count * rows + 1)), once->slot = PyMem_Malloc(8 * (size_t)once->room);
    if (once->word == NULL || once->slot == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t row = 1; row < rows; row++) {
            int64_t word = once->word[i * rows + row] = cell(block, row, (unsigned char)texts[i]);
            if (word < 0 || (word & UINT32_MAX) > heap_size - (word >> 32)) {
                PyErr_SetString(PyExc_ValueError, "a text lies outside its block");
                return 0;
            }
            total += word & UINT32_MAX;
        }
    if ((once->heap = PyMem_Malloc((size_t)total + 1)) == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    memset(once->slot, 255, 8 * (size_t)once->room);
    for (int64_t i = 0; i < count; i++) {
        int64_t *word = once->word + i * rows;
        for (int64_t row = 1; row < rows; row++)
            word[row] = text_once(once, heap + (word[row] >> 32), word[row] & UINT32_MAX);
        word[0] = word[1]; /* nobody reads the texts of a base */
    }
    return 1;
}

/* Describe a column at `to`, where there is room for three numbers; where the description ends. */
static char *describe(const Stored *column, char *to)
{
    int least = bytes_of_signed((int64_t)column->least), factor = (bits_of(column->factor - 1) + 7) / 8;
    uint64_t less = column->factor - 1;
    *to++ = (char)(column->width | (column->kind ? KIND : 0)), *to++ = (char)(least | factor << 4);
    if (column->kind)
        *to++ = (char)column->kind;
    if (column->kind & SHARED)
        *to++ = (char)column->shared;
    if (column->kind & PAIRED)
        *to++ = (char)column->low;
    memcpy(to, &column->least, sizeof column->least), to += least; /* whole words: what follows goes over the rest */
    memcpy(to, &less, sizeof less);
    return to + factor;
}

/* Where the bits of each column begin in a row, columns with the bits of an earlier one apart; the bytes of a row. */
static int64_t place_columns(Stored *columns, int64_t words, int64_t count, int64_t *place)
{
    int64_t bit = 0;
    for (int64_t i = 0; i < words; i++) {
        Stored *one = columns + i;
        for (int64_t j = 0; j < i && one->has_bits && !(one->kind & SHARED); j++)
            if (columns[j].has_bits && !(columns[j].kind & SHARED) && columns[j].width == one->width &&
                memcmp(columns[j].bits, one->bits, 8 * (size_t)count) == 0)
                one->kind |= SHARED, one->shared = (int)j;
        int own = one->has_bits && !(one->kind & SHARED) ? one->width : 0;
        if ((bit & 7) + own > 64)
            bit = (bit + 7) & ~(int64_t)7;
        place[i] = bit, bit += own;
    }
    return bytes_of_row(bit);
}

/* Bytes of the block; NULL with or, if it is no shorter, without an error. `room` is for the bits of all columns. */
static PyObject *narrowed(Block *block, const char *bare, int64_t layout, const char *texts, int64_t text_count,
                          const Once *once, uint64_t *room, int64_t most)
{
    Stored columns[MOST_WORDS];
    int64_t place[MOST_WORDS], words = block->words;
    char descriptions[24 * MOST_WORDS], *described = descriptions;
    int is_bare = memcmp(block->data + block->rows, bare, 8 * (size_t)words) == 0;
    int64_t count = block->count + !is_bare, *word = (int64_t *)room, *spare = word + count;
    room += 3 * count;
    for (int64_t i = 0; i < words; i++) {
        const char *text = memchr(texts, (int)i, (size_t)text_count);
        const char *from = block->data + block->rows + 8 * (words * is_bare + i);
        Range range = {INT64_MAX, INT64_MIN};
        int infinite = 0;
        for (int64_t row = 0; row < count; row++, from += 8 * words) {
            int64_t one = word[row] = word_at(from, 0);
            range.low = one < range.low ? one : range.low, range.high = one > range.high ? one : range.high;
            infinite |= one == nothing_of(NO_FLOAT);
        }
        if (text)
            memcpy(word, once->word + (text - texts) * (block->count + 1) + is_bare, 8 * (size_t)count);
        columns[i].bits = room + count * i;
        int kind = infinite ? NO_FLOAT : range.low == INT64_MIN ? NO_INT : 0;
        measure(columns + i, word, count, text != NULL, range, kind, spare);
    }
    int64_t size = place_columns(columns, words, count, place);
    for (int64_t i = 0; i < words; i++)
        described = describe(columns + i, described);
    int64_t whole = SHORT_HEADER + (described - descriptions) + count * size + once->size + layout;
    if (whole >= most)
        return NULL;
    PyObject *found = PyBytes_FromStringAndSize(NULL, whole);
    if (found == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(found);
    uint32_t header[2] = {(uint32_t)block->count, (uint32_t)once->size};
    uint64_t visible = (uint64_t)word_at(block->data, 2) << 8 | (uint64_t)word_at(block->data, 1) | NARROW |
                       (is_bare ? BARE : 0);
    memcpy(to, header, sizeof header), memcpy(to + 8, &visible, sizeof visible), to += SHORT_HEADER;
    to = add(to, descriptions, (size_t)(described - descriptions));
    memset(to, 0, (size_t)(count * size + 8));
    for (int64_t i = 0; i < words; i++) {
        if (!columns[i].has_bits || columns[i].kind & SHARED)
            continue;
        char *at = to + (place[i] >> 3);
        for (int64_t row = 0; row < count; row++, at += size) {
            uint64_t bytes = (uint64_t)word_at(at, 0) | columns[i].bits[row] << (place[i] & 7);
            memcpy(at, &bytes, sizeof bytes); /* never beyond the layout, which comes last */
        }
    }
    memcpy(add(to + count * size, once->heap, (size_t)once->size), block->data + 8 * HEADER, (size_t)layout);
    return found;
}

/* narrow(block: bytes, bytes of its layout: int, bare base row: bytes, columns of texts: bytes) -> bytes: the same block
 * with narrow rows; itself if that is no shorter. */
static PyObject *narrow(PyObject *module, PyObject *arguments)
{
    PyObject *data, *found = NULL;
    Py_ssize_t layout, bare_size, text_count;
    const char *bare, *texts;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Sny#y#", &data, &layout, &bare, &bare_size, &texts, &text_count))
        return NULL;
    const char *from = PyBytes_AS_STRING(data);
    int64_t length = PyBytes_GET_SIZE(data), words = bare_size / 8, far = (int64_t)1 << 55;
    int64_t heap = length < 8 * HEADER ? -1 : word_at(from, 3);
    Block block;
    for (Py_ssize_t i = 0; i < text_count; i++) /* a column of texts that no row has */
        if ((unsigned char)texts[i] >= words)
            heap = -1;
    if (length > 8 && from[8] & NARROW)
        return Py_NewRef(data);
    if (heap < 0 || !open_block(&block, from, length, words, layout, bare)) {
        PyErr_SetString(PyExc_ValueError, "a block is cut off");
        return NULL;
    }
    int64_t visible = word_at(from, 2);
    if (word_at(from, 1) & ~3 || !block.count || block.count > UINT32_MAX || heap > UINT32_MAX || words > MOST_WORDS ||
        visible < -far || visible >= far)
        return Py_NewRef(data);
    Once once = {0};
    uint64_t *room = PyMem_Malloc(8 * (size_t)(block.count + 1) * (size_t)(words + 3));
    if (room == NULL)
        PyErr_NoMemory();
    else if (put_texts_once(&once, &block, from + 8 * HEADER + layout, heap, texts, text_count))
        found = narrowed(&block, bare, layout, texts, text_count, &once, room, length);
    PyMem_Free(room), PyMem_Free(once.word), PyMem_Free(once.slot), PyMem_Free(once.heap);
    return found != NULL || PyErr_Occurred() ? found : Py_NewRef(data);
}

#define NARROW_METHODS                                                                                                 \
    {"widen", widen, METH_VARARGS, NULL}, {"narrow", narrow, METH_VARARGS, NULL},
