/* Numbers of texts in the order in which they first appear. Twin: pyarrow's dictionary_encode, which waits for memory at
 * each text; here the slots of some texts ahead are asked for before the first of them is looked at. */

#include <stdint.h>
#include <string.h>

enum { AHEAD = 32 };

typedef struct {
    uint32_t hash, size; /* of the text */
    int64_t at, code;    /* its first byte where it first appeared, and its number, -1: free */
} Slot;

static uint64_t hash_text(const uint8_t *from, int64_t size)
{
    uint64_t hash = (uint64_t)size, word;
    for (; size > 0; from += 8, size -= 8) {
        word = 0;
        memcpy(&word, from, size < 8 ? (size_t)size : 8);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    return hash ^ hash >> 32;
}

/* Twice the slots, at least half of which are free. */
static Slot *more_slots(Slot *old, size_t count, size_t *wanted)
{
    Slot *slots = malloc((*wanted = count ? 2 * count : 1 << 12) * sizeof(Slot));
    if (slots != NULL)
        memset(slots, 255, *wanted * sizeof(Slot));
    for (size_t from = 0; slots != NULL && from < count; from++) {
        size_t to = old[from].hash & (*wanted - 1);
        if (old[from].code < 0)
            continue;
        while (slots[to].code >= 0)
            to = (to + 1) & (*wanted - 1);
        slots[to] = old[from];
    }
    free(old);
    return slots;
}

/* How many there are; -1: ends lie outside of the bytes, or a text is too long, -2: no memory */
static int64_t number_texts(const int64_t *ends, int64_t rows, const uint8_t *bytes, int64_t length, int64_t *codes,
                            int64_t *firsts)
{
    size_t count = 0;
    int64_t known = 0;
    Slot *slots = NULL;
    uint32_t hashes[AHEAD];
    for (int64_t first = 0; first < rows; first += AHEAD) {
        int64_t some = rows - first < AHEAD ? rows - first : AHEAD;
        if ((size_t)(known + AHEAD) * 2 > count && (slots = more_slots(slots, count, &count)) == NULL)
            return -2;
        for (int64_t i = 0; i < some; i++) {
            int64_t at = ends[first + i], size = ends[first + i + 1] - at;
            if (at < 0 || size < 0 || size > UINT32_MAX || at + size > length) {
                free(slots);
                return -1;
            }
            hashes[i] = (uint32_t)hash_text(bytes + at, size);
            __builtin_prefetch(slots + (hashes[i] & (count - 1)));
        }
        for (int64_t i = 0; i < some; i++) {
            const Slot *slot = slots + (hashes[i] & (count - 1));
            __builtin_prefetch(bytes + (slot->code < 0 ? 0 : slot->at));
        }
        for (int64_t i = 0; i < some; i++) {
            int64_t row = first + i, at = ends[row], size = ends[row + 1] - at;
            Slot *slot = slots + (hashes[i] & (count - 1));
            while (slot->code >= 0 && (slot->hash != hashes[i] || slot->size != size ||
                                       memcmp(bytes + slot->at, bytes + at, (size_t)size)))
                slot = slot + 1 == slots + count ? slots : slot + 1;
            if (slot->code < 0) {
                *slot = (Slot){hashes[i], (uint32_t)size, at, known};
                firsts[known++] = row;
            }
            codes[row] = slot->code;
        }
    }
    free(slots);
    return known;
}

/* texts(ends, bytes, codes, firsts) -> how many: arrays of int64, one end more than codes; the last two are written */
static PyObject *texts(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer words[4];
    int opened = 0;
    int64_t known = -1;
    (void)module;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "texts takes (ends, bytes, codes, firsts)");
        return NULL;
    }
    for (; opened < 4; opened++)
        if (opened == 1 ? PyObject_GetBuffer(arguments[1], words + 1, PyBUF_SIMPLE) < 0
                        : !open_words(arguments[opened], words + opened, opened > 1 ? PyBUF_WRITABLE : PyBUF_SIMPLE))
            break;
    if (opened == 4) {
        int64_t rows = words[2].len / 8;
        if (words[0].len == words[2].len + 8 && words[3].len == words[2].len) {
            Py_BEGIN_ALLOW_THREADS
            known = number_texts(words[0].buf, rows, words[1].buf, words[1].len, words[2].buf, words[3].buf);
            Py_END_ALLOW_THREADS
        }
        if (known == -1)
            PyErr_SetString(PyExc_ValueError, "each text lies inside its bytes, and has a place to be put");
        else if (known == -2)
            PyErr_NoMemory();
    }
    while (opened)
        PyBuffer_Release(words + --opened);
    return known < 0 ? NULL : PyLong_FromLongLong(known);
}

#define TEXTS_METHODS {"texts", (PyCFunction)(void (*)(void))texts, METH_FASTCALL, NULL},
