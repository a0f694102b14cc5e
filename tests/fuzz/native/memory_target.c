/* Fuzzes ffi/memory.c: copies, fills and looks of any length and place against plain loops, and the guard. */
#define _GNU_SOURCE
#include "../../../ffi/memory.h"
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#define AREA 8192
#define STEPS 32
#define PAGE 4096

static uint8_t area[AREA];
static uint8_t model[AREA];

static void expect_same(void) { CHECK(memcmp(area, model, AREA) == 0); }

static void copy(struct input *input) {
    uint32_t from = take16(input) % AREA;
    uint32_t to = take16(input) % AREA;
    uint32_t most = AREA - (from > to ? from : to);
    uint32_t length = take16(input) % (most + 1);
    uint8_t before[AREA];
    memcpy(before, model, AREA);
    for (uint32_t i = 0; i < length; i++) {
        model[to + i] = before[from + i];
    }
    ubi_memory_copy(area + to, area + from, length);
    expect_same();
}

static void set(struct input *input) {
    uint32_t at = take16(input) % AREA;
    uint32_t length = take16(input) % (AREA - at + 1);
    uint32_t value = take32(input);
    uint8_t kind = take8(input);
    if (kind % 2 == 0) {
        ubi_memory_fill(area + at, value, length);
    } else {
        ubi_memory_wipe(area + at, length);
        value = 0;
    }
    for (uint32_t i = 0; i < length; i++) {
        model[at + i] = (uint8_t)value;
    }
    expect_same();
}

static void look(struct input *input) {
    uint32_t at = take16(input) % AREA;
    uint32_t length = take16(input) % (AREA - at + 1);
    int is_zero = 1;
    for (uint32_t i = 0; i < length; i++) {
        is_zero &= model[at + i] == 0;
    }
    /* From a block of its own as well: a step beyond it would be seen. */
    uint8_t *exact = malloc(length == 0 ? 1 : length);
    memcpy(exact, area + at, length);
    CHECK(ubi_memory_is_zero(area + at, length) == is_zero);
    CHECK(ubi_memory_is_zero(exact, length) == is_zero);
    free(exact);
}

static void small(struct input *input) {
    uint32_t at = take16(input) % (AREA - 16);
    uint32_t to = take16(input) % (AREA - 16);
    uint32_t value = take32(input);
    uint8_t snapshot[16];
    ubi_memory_load16(snapshot, area + at);
    CHECK(memcmp(snapshot, model + at, 16) == 0);
    if (value % 2 == 0) {
        ubi_memory_store8(area + to, value);
        model[to] = (uint8_t)value;
    } else {
        ubi_memory_store32(area + to, value);
        memcpy(model + to, &value, sizeof(value));
    }
    expect_same();
}

/* A file of some pages that is cut off: what lies behind its end reads as zeros and can be written, and is counted. */
static void guard(struct input *input) {
    uint32_t pages = 1 + take8(input) % 6;
    uint32_t kept = take8(input) % (pages + 1);
    uint32_t touched = take8(input) % pages;
    size_t length = (size_t)pages * PAGE;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
    double address = ubi_memory_map_file(fd, 0, (double)length, 1);
    CHECK(address > 0);
    uint8_t *memory = ubi_pointer(address);
    memset(memory, 0x5a, length);
    CHECK(ubi_memory_guard_add(address, (double)length, PAGE) == 0);
    CHECK(ftruncate(fd, (off_t)kept * PAGE) == 0);
    double before = ubi_memory_guard_faults();
    uint8_t bytes[16];
    uint32_t at = touched * PAGE + take16(input) % (PAGE - 16);
    ubi_memory_load16(bytes, memory + at);
    int is_lost = touched >= kept;
    CHECK(bytes[0] == (is_lost ? 0 : 0x5a) && bytes[15] == bytes[0]);
    ubi_memory_store8(memory + at, 7);
    CHECK(memory[at] == 7);
    CHECK(ubi_memory_guard_faults() - before == (is_lost ? 1 : 0));
    CHECK(ubi_memory_guard_remove(address) == 0 && ubi_memory_guard_remove(address) == -ENOENT);
    CHECK(ubi_memory_unmap(address, (double)length) == 0);
    close(fd);
}

#define RANGES_MAX 2048 /* of memory.c */

/* The table holds so many ranges, and forgets those that are removed. */
static void fill_table(struct input *input) {
    static double ranges[RANGES_MAX];
    uint32_t count = take16(input) % (RANGES_MAX + 1);
    for (uint32_t i = 0; i < count; i++) {
        ranges[i] = (double)(0x100000 + (uint64_t)i * PAGE);
        CHECK(ubi_memory_guard_add(ranges[i], PAGE, PAGE) == 0);
    }
    CHECK(count < RANGES_MAX || ubi_memory_guard_add(1, PAGE, PAGE) == -ENOSPC);
    for (uint32_t i = count; i-- > 0;) {
        CHECK(ubi_memory_guard_remove(ranges[i]) == 0);
    }
}

static void map(struct input *input) {
    double length = (double)(take32(input) % (1 << 23));
    double address = ubi_memory_map_anonymous(length);
    if (length == 0) {
        CHECK(address == -EINVAL);
        return;
    }
    CHECK(address > 0 && ubi_memory_is_zero(ubi_pointer(address), length < PAGE ? (uint32_t)length : PAGE) == 1);
    CHECK(ubi_memory_unmap(address, length) == 0);
    int fd = take8(input) % 4 - 1; /* standard streams and none: no descriptors of memory */
    CHECK(ubi_memory_map_file(fd, (double)take16(input) * PAGE, 0, 1) < 0);
    CHECK(ubi_memory_seals(fd) < 0);
    int shared = ubi_memory_create_shared(length);
    CHECK(shared >= 0 && ubi_memory_seals(shared) > 0 && ubi_memory_page_size(shared) == PAGE);
    CHECK(ftruncate(shared, 0) < 0);
    close(shared);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input input = {data, size};
    CHECK(ubi_memory_guard_install() == 0);
    fill_bytes(area, AREA, take8(&input));
    memcpy(model, area, AREA);
    for (int step = 0; step < STEPS && input.left > 0; step++) {
        switch (take8(&input) % 8) {
        case 0:
        case 1:
            copy(&input);
            break;
        case 2:
            set(&input);
            break;
        case 3:
            look(&input);
            break;
        case 4:
            small(&input);
            break;
        case 5:
            guard(&input);
            break;
        case 6:
            fill_table(&input);
            break;
        default:
            map(&input);
        }
    }
    return 0;
}
