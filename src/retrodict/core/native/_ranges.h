/* Greatest or smallest number of many ranges of one array. Twin: retrodict.features.facts.kernels.RangeExtremes.
 *
 * Above the numbers lie levels of every sixty-four below, so a range is the two ends of it on a few levels, and nothing
 * has to be laid out beforehand but a sixtieth of the numbers. */

#include <stdint.h>

enum { FAN = 64, MOST_LEVELS = 12 };

#define DEFINE_EXTREME(name, type)                                                                            \
    static type name##_scan(const type *from, Py_ssize_t first, Py_ssize_t end, type best, int largest)       \
    {                                                                                                         \
        if (largest)                                                                                          \
            for (; first < end; first++)                                                                      \
                best = from[first] > best ? from[first] : best;                                               \
        else                                                                                                  \
            for (; first < end; first++)                                                                      \
                best = from[first] < best ? from[first] : best;                                               \
        return best;                                                                                          \
    }                                                                                                         \
    static type name(const Py_buffer *level, Py_ssize_t levels, Py_ssize_t first, Py_ssize_t end, type best,  \
                     int largest)                                                                             \
    {                                                                                                         \
        /* Below two fans, going up a level saves nothing. */                                                 \
        for (; levels > 1 && end - first > 2 * FAN; level++, levels--) {                                      \
            Py_ssize_t up = (first + FAN - 1) / FAN, upto = end / FAN;                                        \
            best = name##_scan(level->buf, first, up * FAN, best, largest);                                   \
            best = name##_scan(level->buf, upto * FAN, end, best, largest);                                   \
            first = up, end = upto;                                                                           \
        }                                                                                                     \
        return name##_scan(level->buf, first, end, best, largest);                                            \
    }

DEFINE_EXTREME(extreme_whole, int64_t)
DEFINE_EXTREME(extreme_float, double)

static void put_extremes(const Py_buffer *level, Py_ssize_t levels, const Py_buffer *ranges, const Py_buffer *found,
                         int floats, int largest)
{
    const int64_t *left = ranges[0].buf, *right = ranges[1].buf;
    for (Py_ssize_t row = 0; row < found->len / 8; row++) {
        if (left[row] >= right[row])
            continue;
        if (floats) {
            double *to = (double *)found->buf + row;
            *to = extreme_float(level, levels, left[row], right[row], *to, largest);
        } else {
            int64_t *to = (int64_t *)found->buf + row;
            *to = extreme_whole(level, levels, left[row], right[row], *to, largest);
        }
    }
}

static int ranges_fit(const Py_buffer *level, Py_ssize_t levels, const Py_buffer *ranges, const Py_buffer *found)
{
    if (ranges[0].len != found->len || ranges[1].len != found->len)
        return 0;
    for (Py_ssize_t i = 1; i < levels; i++)
        if (level[i].len / 8 != (level[i - 1].len / 8 + FAN - 1) / FAN)
            return 0;
    const int64_t *left = ranges[0].buf, *right = ranges[1].buf;
    for (Py_ssize_t row = 0; row < found->len / 8; row++)
        if (left[row] < right[row] && (left[row] < 0 || right[row] > level[0].len / 8))
            return 0;
    return 1;
}

/* extremes(levels: tuple of arrays, left, right, found, floats, largest): found holds what there is already */
static PyObject *extremes(PyObject *module, PyObject *arguments)
{
    PyObject *levels, *given[3];
    int floats, largest, fits = 1;
    Py_buffer level[MOST_LEVELS], array[3];
    Py_ssize_t opened = 0, others = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O!OOOpp", &PyTuple_Type, &levels, given, given + 1, given + 2, &floats, &largest))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(levels);
    if (count < 1 || count > MOST_LEVELS) {
        PyErr_SetString(PyExc_ValueError, "there is a level, and not too many");
        return NULL;
    }
    while (opened < count && open_words(PyTuple_GET_ITEM(levels, opened), level + opened, PyBUF_SIMPLE))
        opened++;
    while (opened == count && others < 3 &&
           open_words(given[others], array + others, others == 2 ? PyBUF_WRITABLE : PyBUF_SIMPLE))
        others++;
    if (opened == count && others == 3) {
        Py_BEGIN_ALLOW_THREADS
        fits = ranges_fit(level, count, array, array + 2);
        if (fits)
            put_extremes(level, count, array, array + 2, floats, largest);
        Py_END_ALLOW_THREADS
    }
    int done = opened == count && others == 3 && fits;
    while (opened)
        PyBuffer_Release(level + --opened);
    while (others)
        PyBuffer_Release(array + --others);
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "ranges lie inside their numbers, and each has a place to be put");
    return done ? Py_NewRef(Py_None) : NULL;
}

#define RANGES_METHODS {"extremes", extremes, METH_VARARGS, NULL},
