/*
 * The floor: the least that one thread can spend on moving blocks between memory and a file. io_uring by
 * liburing with everything registered (file, buffers, the ring itself), a ring that only its own thread
 * uses and that does its work when that thread asks for it, and requests in batches: take every
 * completion, start as many again in one system call, wait in another, as fio does and as a server has to
 * that looks at its guest in between. No guest, no rings of virtio, no cipher.
 *
 *   floor FILE read|write random|sequential BLOCK_BYTES DEPTH SECONDS SEED
 *
 * prints {"operations":N,"seconds":S,"cpuSeconds":C,"enters":E,"p50Us":P,"p99Us":Q}. Offsets come from the
 * generator that `ubiblk bench` uses (xorshift32, seed mixed once), so that the same seed visits the same
 * blocks. CPU time is that of the whole process: the kernel's helper threads of this ring belong to it.
 * Each request's latency is measured by itself, as every benchmark and backend does that reports any.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 1024
/* Histogram of latencies: 16 buckets for each power of two of nanoseconds. */
#define BUCKETS (40 * 16)
#define WARM_UP_NS 300000000ull

struct load {
    int fd;
    int is_write;
    int is_random;
    uint32_t block_bytes;
    uint32_t depth;
    double seconds;
    uint32_t random_state;
    uint64_t block_count;
    uint64_t next_block;
    uint64_t started_ns[DEPTH_MAX];
    uint64_t latencies[BUCKETS];
};

static void fail(const char *what, int error)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(error));
    exit(1);
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 16)
        return (unsigned)ns;
    unsigned exponent = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (exponent - 3) * 16 + (unsigned)((ns >> (exponent - 4)) & 15);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The upper end of the bucket that holds the given share of all latencies, microseconds. */
static double percentile_us(const struct load *load, double share)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        total += load->latencies[i];
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += load->latencies[i];
        if ((double)seen >= share * (double)total)
            return i < 16 ? i / 1e3 : (double)((16ull + i % 16 + 1) << (i / 16 - 1)) / 1e3;
    }
    return 0;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint32_t mixed(uint32_t value)
{
    uint32_t x = value ^ 0x9e3779b9u;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

static uint64_t choose_offset(struct load *load)
{
    uint64_t block;
    if (load->is_random) {
        uint32_t x = load->random_state;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        load->random_state = x;
        block = ((uint64_t)x * load->block_count) >> 32;
    } else {
        block = load->next_block;
        load->next_block = block + 1 == load->block_count ? 0 : block + 1;
    }
    return block * load->block_bytes;
}

static void prepare(struct io_uring *ring, struct load *load, char *buffers, uint32_t slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    char *buffer = buffers + (size_t)slot * load->block_bytes;
    uint64_t offset = choose_offset(load);
    if (load->is_write)
        io_uring_prep_write_fixed(sqe, 0, buffer, load->block_bytes, offset, 0);
    else
        io_uring_prep_read_fixed(sqe, 0, buffer, load->block_bytes, offset, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, slot);
    load->started_ns[slot] = clock_ns();
}

static char *set_up(struct io_uring *ring, struct load *load)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN,
    };
    int result = io_uring_queue_init_params(load->depth, ring, &params);
    if (result < 0)
        fail("io_uring", -result);
    size_t length = (size_t)load->depth * load->block_bytes;
    char *buffers = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers == MAP_FAILED)
        fail("memory", errno);
    for (uint32_t slot = 0; slot < load->depth; slot++)
        memset(buffers + (size_t)slot * load->block_bytes, 0x51 + (int)slot, load->block_bytes);
    struct iovec vector = {.iov_base = buffers, .iov_len = length};
    if ((result = io_uring_register_buffers(ring, &vector, 1)) < 0)
        fail("registering buffers", -result);
    if ((result = io_uring_register_files(ring, &load->fd, 1)) < 0)
        fail("registering the file", -result);
    if ((result = io_uring_register_ring_fd(ring)) < 0)
        fail("registering the ring", -result);
    return buffers;
}

static void run(struct io_uring *ring, struct load *load, char *buffers)
{
    uint64_t start = clock_ns(), begin = 0, now;
    double cpu_begin = 0;
    uint64_t operations = 0, enters = 0;
    for (uint32_t slot = 0; slot < load->depth; slot++)
        prepare(ring, load, buffers, slot);
    for (;;) {
        struct io_uring_cqe *cqe;
        int result = io_uring_submit(ring);
        if (result >= 0)
            result = io_uring_wait_cqe(ring, &cqe);
        if (result < 0 && result != -EINTR)
            fail("io_uring_enter", -result);
        unsigned head, count = 0;
        io_uring_for_each_cqe(ring, head, cqe) {
            if (cqe->res != (int)load->block_bytes)
                fail("a request moved too little", cqe->res < 0 ? -cqe->res : EIO);
            uint32_t slot = (uint32_t)cqe->user_data;
            load->latencies[bucket_of(clock_ns() - load->started_ns[slot])]++;
            prepare(ring, load, buffers, slot);
            count++;
        }
        io_uring_cq_advance(ring, count);
        operations += count;
        enters++;
        now = clock_ns();
        if (begin == 0 && now - start >= WARM_UP_NS) {
            begin = now;
            cpu_begin = cpu_seconds();
            operations = enters = 0;
            memset(load->latencies, 0, sizeof load->latencies);
        }
        if (begin != 0 && (double)(now - begin) >= load->seconds * 1e9)
            break;
    }
    double cpu = cpu_seconds() - cpu_begin;
    printf("{\"operations\":%llu,\"seconds\":%.6f,\"cpuSeconds\":%.6f,\"enters\":%llu,"
           "\"p50Us\":%.3f,\"p99Us\":%.3f}\n",
           (unsigned long long)operations, (double)(now - begin) / 1e9, cpu,
           (unsigned long long)enters, percentile_us(load, 0.5), percentile_us(load, 0.99));
}

int main(int count, char **words)
{
    if (count != 8) {
        fprintf(stderr, "usage: floor FILE read|write random|sequential BLOCK DEPTH SECONDS SEED\n");
        return 2;
    }
    static struct load load;
    load = (struct load){
        .is_write = strcmp(words[2], "write") == 0,
        .is_random = strcmp(words[3], "random") == 0,
        .block_bytes = (uint32_t)atoi(words[4]),
        .depth = (uint32_t)atoi(words[5]),
        .seconds = atof(words[6]),
        .random_state = mixed((uint32_t)atoi(words[7])),
    };
    struct stat info;
    load.fd = open(words[1], (load.is_write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    if (load.fd < 0 || fstat(load.fd, &info) < 0)
        fail(words[1], errno);
    if (load.block_bytes < 512 || load.depth < 1 || load.depth > DEPTH_MAX)
        fail("block size or depth", EINVAL);
    load.block_count = (uint64_t)info.st_size / load.block_bytes;
    if (load.random_state == 0)
        load.random_state = 1;
    struct io_uring ring;
    char *buffers = set_up(&ring, &load);
    run(&ring, &load, buffers);
    return 0; /* requests in flight end with the process */
}
