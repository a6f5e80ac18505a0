/* Moments of keys in ascending order of (code, moment), equal ones as they come, packed as code * span + moment - base.
 * Twin: numpy.argsort(packed, kind="stable"); a moment outside [base, base + span) counts as the nearest one inside.
 *
 * One pass puts each moment among those of its key, and those are few or in order already: events arrive nearly as they
 * happen. Nothing is allocated beside what is asked for: fresh memory costs more than sorting. A call places the codes of
 * one range only, so that threads may share the places: what lies below the range is counted, and left alone. */

#include <stdint.h>
#include <string.h>

#define FEW 24 /* up to here insertion beats merging */

typedef struct {
    int64_t *numbers, *places;
} Run;

static Run run_at(Run run, Py_ssize_t place) { return (Run){run.numbers + place, run.places + place}; }

static void copy_run(Run to, Run from, Py_ssize_t count)
{
    memcpy(to.numbers, from.numbers, (size_t)count * sizeof(int64_t));
    memcpy(to.places, from.places, (size_t)count * sizeof(int64_t));
}

static void insert_into(Run run, Py_ssize_t count)
{
    for (Py_ssize_t next = 1; next < count; next++) {
        int64_t number = run.numbers[next], place = run.places[next];
        Py_ssize_t at = next;
        for (; at > 0 && run.numbers[at - 1] > number; at--)
            run.numbers[at] = run.numbers[at - 1], run.places[at] = run.places[at - 1];
        run.numbers[at] = number, run.places[at] = place;
    }
}

/* Sorts halves and merges the first, set aside in ``spare``, with the second; what is in order is only looked at. */
static void sort_run(Run run, Py_ssize_t count, Run spare)
{
    Py_ssize_t next = 1, half = count / 2, left = 0, right = half, to = 0;
    while (next < count && run.numbers[next - 1] <= run.numbers[next])
        next++;
    if (next >= count)
        return;
    if (count <= FEW) {
        insert_into(run, count);
        return;
    }
    sort_run(run, half, spare);
    sort_run(run_at(run, half), count - half, spare);
    copy_run(spare, run, half);
    while (left < half) {
        if (right < count && run.numbers[right] < spare.numbers[left])
            run.numbers[to] = run.numbers[right], run.places[to++] = run.places[right++];
        else
            run.numbers[to] = spare.numbers[left], run.places[to++] = spare.places[left++];
    }
}

typedef struct {
    const int64_t *codes, *moments;
    Py_ssize_t count;
    int64_t base, span, size, first, end; /* codes lie below size; those from first to end are placed */
} Unsorted;

static int64_t packed_at(const Unsorted *from, Py_ssize_t at)
{
    int64_t moment = from->moments[at], last = from->base + from->span - 1;
    moment = moment < from->base ? from->base : moment > last ? last : moment;
    return from->codes[at] * from->span + (moment - from->base);
}

/* 0: done, 1: a code lies outside, 2: no memory */
static int sort_by_code(const Unsorted *from, Run run)
{
    const int64_t *codes = from->codes;
    const int64_t first = from->first, size = from->end - first;
    int answer = 2;
    int64_t longest = 0, below = 0;
    int64_t *ends = calloc((size_t)size + 1, sizeof(int64_t));
    Run spare = {NULL, NULL};
    if (ends == NULL)
        return 2;
    for (Py_ssize_t at = 0; at < from->count; at++) {
        int64_t code = codes[at] - first;
        if (codes[at] < 0 || codes[at] >= from->size) {
            answer = 1;
            goto end;
        }
        below += code < 0;
        if (code >= 0 && code < size)
            ends[code + 1]++;
    }
    ends[0] = below;
    for (int64_t code = 0; code < size; code++) {
        longest = ends[code + 1] > longest ? ends[code + 1] : longest;
        ends[code + 1] += ends[code]; /* so far where each run begins */
    }
    spare.numbers = malloc((size_t)(longest / 2 + 1) * sizeof(int64_t));
    spare.places = malloc((size_t)(longest / 2 + 1) * sizeof(int64_t));
    if (spare.numbers == NULL || spare.places == NULL)
        goto end;
    for (Py_ssize_t at = 0; at < from->count; at++) {
        int64_t code = codes[at] - first;
        if (code >= 0 && code < size) {
            int64_t to = ends[code]++;
            run.numbers[to] = packed_at(from, at), run.places[to] = at;
        }
    }
    for (int64_t code = 0, begin = below; code < size; begin = ends[code++])
        sort_run(run_at(run, (Py_ssize_t)begin), (Py_ssize_t)(ends[code] - begin), spare);
    answer = 0;
end:
    free(ends), free(spare.numbers), free(spare.places);
    return answer;
}

/* order(codes, moments, (base, span, size, first, end), sorted, places): arrays of int64, the last two written */
static PyObject *order(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    static const int arrays[] = {0, 1, 3, 4};
    Py_buffer words[4];
    Unsorted from;
    int opened = 0, answer = 1;
    (void)module;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "order takes (codes, moments, (base, span, size, first, end), sorted, places)");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments[2], "LLLLL", &from.base, &from.span, &from.size, &from.first, &from.end))
        return NULL;
    for (; opened < 4; opened++)
        if (!open_words(arguments[arrays[opened]], &words[opened], opened < 2 ? PyBUF_SIMPLE : PyBUF_WRITABLE))
            break;
    if (opened == 4) {
        from.codes = words[0].buf, from.moments = words[1].buf, from.count = words[0].len / 8;
        if (from.first >= 0 && from.first <= from.end && from.end <= from.size && words[1].len == words[0].len && words[2].len == words[0].len &&
            words[3].len == words[0].len) {
            Py_BEGIN_ALLOW_THREADS
            answer = sort_by_code(&from, (Run){words[2].buf, words[3].buf});
            Py_END_ALLOW_THREADS
        }
        if (answer == 1)
            PyErr_SetString(PyExc_ValueError, "each moment has a code below size, and a place");
        else if (answer == 2)
            PyErr_NoMemory();
    }
    for (int at = 0; at < opened; at++)
        PyBuffer_Release(&words[at]);
    return answer ? NULL : Py_NewRef(Py_None);
}

#define SORTING_METHODS {"order", (PyCFunction)(void (*)(void))order, METH_FASTCALL, NULL},
