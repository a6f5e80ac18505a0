/* SHA-256 of entries of a ledger and of nodes of a Merkle tree, by the instructions that the processor has for it: OpenSSL
 * takes longer to begin a hash than to compute one of some hundred bytes. Where there are none, neither function is in
 * the module, and the twins do the work with OpenSSL: retrodict.ledger.chain, retrodict.ledger.merkle. */

#ifdef __x86_64__

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 64, DIGEST = 32, PREVIOUS = DIGEST, NUMBER_TEXT = 21 };

/* FIPS 180-4, 4.2.2 and 5.3.3 */
static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t initial_hash[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static int has_sha(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_SSE4_1) || !(ecx & bit_SSSE3))
        return 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ebx >> 29 & 1;
}

/* The instructions want the eight words as ABEF and CDGH, and do two rounds each. */
__attribute__((target("sha,sse4.1,ssse3"))) static void add_blocks_to(__m128i state[2], const uint8_t *data, size_t size)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (; size; data += BLOCK, size -= BLOCK) {
        __m128i low = state[0], high = state[1], words[4];
#pragma GCC unroll 16
        for (int four = 0; four < 16; four++) {
            __m128i *word = &words[four & 3], *last = &words[(four + 3) & 3];
            if (four < 4)
                *word = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + four), big_endian);
            else {
                __m128i sums = _mm_sha256msg1_epu32(*word, words[(four + 1) & 3]);
                sums = _mm_add_epi32(sums, _mm_alignr_epi8(*last, words[(four + 2) & 3], 4));
                *word = _mm_sha256msg2_epu32(sums, *last);
            }
            __m128i keyed = _mm_add_epi32(*word, _mm_loadu_si128((const __m128i *)round_constants + four));
            high = _mm_sha256rnds2_epu32(high, low, keyed);
            low = _mm_sha256rnds2_epu32(low, high, _mm_shuffle_epi32(keyed, 0x0e));
        }
        state[0] = _mm_add_epi32(state[0], low);
        state[1] = _mm_add_epi32(state[1], high);
    }
}

/* Bytes that a message takes with its padding; the buffer that holds it must have them. */
static size_t padded(size_t size)
{
    return (size + 1 + 8 + BLOCK - 1) / BLOCK * BLOCK;
}

/* Pad a message in its buffer, and put its hash somewhere. */
__attribute__((target("sha,sse4.1,ssse3"))) static void hash_message(uint8_t *message, size_t size, uint8_t *digest)
{
    size_t whole = padded(size);
    uint64_t bits = __builtin_bswap64((uint64_t)size * 8);
    uint32_t words[8];
    message[size] = 0x80;
    memset(message + size + 1, 0, whole - size - 9);
    memcpy(message + whole - 8, &bits, 8);
    const uint32_t *h = initial_hash;
    __m128i state[2] = {_mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]),
                        _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7])};
    add_blocks_to(state, message, whole);
    static const int places[8] = {3, 2, 7, 6, 1, 0, 5, 4}; /* of A to H in both halves */
    _mm_storeu_si128((__m128i *)words, state[0]);
    _mm_storeu_si128((__m128i *)(words + 4), state[1]);
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(words[places[i]]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

/* part_hashes(data, width: int, prefix: bytes) -> bytes: of each whole part of the data behind the prefix */
static PyObject *part_hashes(PyObject *module, PyObject *arguments)
{
    Py_buffer data, prefix;
    Py_ssize_t width;
    PyObject *hashes = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*ny*", &data, &width, &prefix))
        return NULL;
    uint8_t message[4 * BLOCK];
    if (width < 1 || prefix.len > BLOCK || width > 2 * BLOCK)
        PyErr_SetString(PyExc_ValueError, "a part must have 1 to 128 bytes, its prefix at most 64");
    else if ((hashes = PyBytes_FromStringAndSize(NULL, data.len / width * DIGEST)) != NULL) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(hashes);
        memcpy(message, prefix.buf, (size_t)prefix.len);
        for (Py_ssize_t part = 0; part < data.len / width; part++, to += DIGEST) {
            memcpy(message + prefix.len, (const uint8_t *)data.buf + part * width, (size_t)width);
            hash_message(message, (size_t)(prefix.len + width), to);
        }
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&prefix);
    return hashes;
}

/* The bytes of an ASCII text, and how many; NULL: it is none, or has to be written otherwise inside of quotes. */
static const uint8_t *plain(PyObject *text, int quoted, size_t *size)
{
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_ASCII(text))
        return NULL;
    const uint8_t *bytes = PyUnicode_1BYTE_DATA(text);
    *size = (size_t)PyUnicode_GET_LENGTH(text);
    for (size_t i = 0; quoted && i < *size; i++)
        if (bytes[i] < ' ' || bytes[i] > '~' || bytes[i] == '"' || bytes[i] == '\\')
            return NULL;
    return bytes;
}

/* row_hashes(rows, last: bytes) -> bytes, or None where a value is not of the usual type or needs an escape
 *
 * A row is (sequence, time, actor, action, object, text of the payload, …); what is hashed is the length of its body in
 * eight bytes, the body, and the hash of the row before. */
static PyObject *row_hashes(PyObject *module, PyObject *arguments)
{
    static const char *const names[] = {"{\"action\":\"", "\",\"actor\":\"", "\",\"object\":\"", "\",\"payload\":"};
    static const int columns[] = {3, 2, 4, 5};
    PyObject *rows;
    const char *last;
    Py_ssize_t last_size;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O!y#", &PyList_Type, &rows, &last, &last_size))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(rows), row = 0;
    PyObject *hashes = PyBytes_FromStringAndSize(NULL, count * DIGEST);
    uint8_t *message = NULL;
    size_t room = 0;
    for (; hashes != NULL && last_size == PREVIOUS && row < count; row++) {
        PyObject *values = PyList_GET_ITEM(rows, row);
        const uint8_t *texts[4];
        size_t sizes[4], need = 200 + 2 * NUMBER_TEXT, at = 8;
        if (!PyTuple_CheckExact(values) || PyTuple_GET_SIZE(values) < 6)
            break;
        int usual = PyLong_CheckExact(PyTuple_GET_ITEM(values, 0)) && PyLong_CheckExact(PyTuple_GET_ITEM(values, 1));
        for (int i = 0; usual && i < 4; i++) {
            usual = (texts[i] = plain(PyTuple_GET_ITEM(values, columns[i]), i < 3, &sizes[i])) != NULL;
            need += usual ? sizes[i] : 0;
        }
        int large = 0, later = 0;
        long long sequence = usual ? PyLong_AsLongLongAndOverflow(PyTuple_GET_ITEM(values, 0), &large) : 0;
        long long time = usual ? PyLong_AsLongLongAndOverflow(PyTuple_GET_ITEM(values, 1), &later) : 0;
        if (!usual || large || later)
            break;
        if (need > room) {
            uint8_t *more = PyMem_Realloc(message, room = 2 * need);
            if (more == NULL) {
                PyErr_NoMemory();
                Py_CLEAR(hashes);
                break;
            }
            message = more;
        }
        for (int i = 0; i < 4; i++) {
            size_t size = strlen(names[i]);
            memcpy(message + at, names[i], size);
            memcpy(message + at + size, texts[i], sizes[i]);
            at += size + sizes[i];
        }
        at += (size_t)sprintf((char *)message + at, ",\"sequence\":%lld,\"time\":%lld}", sequence, time);
        uint64_t length = __builtin_bswap64((uint64_t)at - 8);
        memcpy(message, &length, 8);
        uint8_t *digest = (uint8_t *)PyBytes_AS_STRING(hashes) + row * DIGEST;
        memcpy(message + at, row ? digest - DIGEST : (const uint8_t *)last, PREVIOUS);
        hash_message(message, at + PREVIOUS, digest);
    }
    PyMem_Free(message);
    if (hashes != NULL && row < count) {
        Py_DECREF(hashes);
        Py_RETURN_NONE;
    }
    return hashes;
}

static PyMethodDef hashes_methods[] = {
    {"part_hashes", part_hashes, METH_VARARGS, NULL},
    {"row_hashes", row_hashes, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int add_hashes(PyObject *module)
{
    return has_sha() ? PyModule_AddFunctions(module, hashes_methods) : 0;
}

#else

static int add_hashes(PyObject *module)
{
    (void)module;
    return 0;
}

#endif
