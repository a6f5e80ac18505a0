/* Places of numbers in a sorted array. Twin: numpy.searchsorted, which begins each search anew: requests in the order of
 * the events they ask for lie near one another, so each search begins where the last one ended. */

#include <stdint.h>

/* First place whose number is not below the one that is looked for, found from a place near by. */
/* Steps double away from where the last search ended, then halve: the cost grows with the distance, not the array. */
static Py_ssize_t place_near(const int64_t *sorted, Py_ssize_t count, Py_ssize_t near, int64_t number)
{
    Py_ssize_t low = near, high = near, step = 1;
    if (near < count && sorted[near] < number) {
        while (high < count && sorted[high] < number)
            low = high + 1, high = step > count - low ? count : low + step, step *= 2;
    } else {
        while (low > 0 && sorted[low - 1] >= number)
            high = low - 1, low = step > high ? 0 : high - step, step *= 2;
    }
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (sorted[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int open_words(PyObject *object, Py_buffer *words, int flags)
{
    if (PyObject_GetBuffer(object, words, flags | PyBUF_C_CONTIGUOUS) < 0)
        return 0;
    if (words->itemsize == 8 && (uintptr_t)words->buf % sizeof(int64_t) == 0)
        return 1;
    PyBuffer_Release(words);
    PyErr_SetString(PyExc_ValueError, "numbers are 64-bit words");
    return 0;
}

/* positions(sorted, numbers, found): arrays of int64, the last one written */
static PyObject *positions(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer sorted, numbers, found;
    (void)module;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "positions takes (sorted, numbers, found)");
        return NULL;
    }
    if (!open_words(arguments[0], &sorted, PyBUF_SIMPLE))
        return NULL;
    if (!open_words(arguments[1], &numbers, PyBUF_SIMPLE)) {
        PyBuffer_Release(&sorted);
        return NULL;
    }
    if (!open_words(arguments[2], &found, PyBUF_WRITABLE)) {
        PyBuffer_Release(&sorted), PyBuffer_Release(&numbers);
        return NULL;
    }
    int fits = found.len == numbers.len;
    if (fits) {
        const int64_t *from = sorted.buf, *number = numbers.buf;
        int64_t *to = found.buf;
        Py_ssize_t size = sorted.len / 8, rows = numbers.len / 8, near = 0;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t row = 0; row < rows; row++)
            to[row] = near = place_near(from, size, near, number[row]);
        Py_END_ALLOW_THREADS
    } else
        PyErr_SetString(PyExc_ValueError, "there is one place for each number");
    PyBuffer_Release(&sorted), PyBuffer_Release(&numbers), PyBuffer_Release(&found);
    return fits ? Py_NewRef(Py_None) : NULL;
}

#define SEARCH_METHODS {"positions", (PyCFunction)(void (*)(void))positions, METH_FASTCALL, NULL},
