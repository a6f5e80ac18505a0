/* Records of a segment of a stream, cut out of a buffer. Twin: retrodict.stores.streams._frames.
 *
 * A frame is the length of its record, a CRC-32 over those four bytes and the record, and the record; numbers are
 * little-endian. The checksum goes eight bytes at a time through eight tables, which are made once, at import. */

#include <stdint.h>
#include <string.h>

enum { FRAME_HEAD = 8, CRC_STEP = 8 };

static uint32_t crc_table[CRC_STEP][256];

static void make_crc_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        crc_table[0][byte] = crc;
    }
    for (int step = 1; step < CRC_STEP; step++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = crc_table[step - 1][byte];
            crc_table[step][byte] = crc >> 8 ^ crc_table[0][crc & 0xFF];
        }
}

static uint32_t little(const unsigned char *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* State of a CRC-32 after these bytes; it begins with all bits set and ends with all bits turned. */
static uint32_t crc_after(uint32_t crc, const unsigned char *data, size_t size)
{
    for (; size >= CRC_STEP; data += CRC_STEP, size -= CRC_STEP) {
        uint32_t low = crc ^ little(data), high = little(data + 4);
        crc = crc_table[7][low & 0xFF] ^ crc_table[6][low >> 8 & 0xFF] ^ crc_table[5][low >> 16 & 0xFF] ^
              crc_table[4][low >> 24] ^ crc_table[3][high & 0xFF] ^ crc_table[2][high >> 8 & 0xFF] ^
              crc_table[1][high >> 16 & 0xFF] ^ crc_table[0][high >> 24];
    }
    while (size--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *data++) & 0xFF];
    return crc;
}

/* cut_frames(data: bytes, at: int, most: int) -> (records, place after the last one) */
static PyObject *cut_frames(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    Py_ssize_t at, most;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nn", &data, &at, &most))
        return NULL;
    PyObject *records = PyList_New(0);
    const unsigned char *bytes = data.buf;
    if (records != NULL && (at < 0 || at > data.len)) {
        PyErr_SetString(PyExc_ValueError, "frames begin inside their buffer");
        Py_CLEAR(records);
    }
    while (records != NULL && PyList_GET_SIZE(records) < most && data.len - at >= FRAME_HEAD) {
        uint32_t length = little(bytes + at), crc = little(bytes + at + 4);
        const unsigned char *begin = bytes + at + FRAME_HEAD;
        /* A length is compared with what is there before it is used: a torn or damaged frame ends the reading. */
        if ((uint64_t)length > (uint64_t)(data.len - at - FRAME_HEAD) ||
            ~crc_after(crc_after(~(uint32_t)0, bytes + at, 4), begin, length) != crc)
            break;
        PyObject *record = PyBytes_FromStringAndSize((const char *)begin, length);
        if (record == NULL || PyList_Append(records, record) < 0)
            Py_CLEAR(records);
        Py_XDECREF(record);
        at += FRAME_HEAD + (Py_ssize_t)length;
    }
    PyBuffer_Release(&data);
    return records ? Py_BuildValue("Nn", records, at) : NULL;
}

#define FRAMES_METHODS {"cut_frames", cut_frames, METH_VARARGS, NULL},
