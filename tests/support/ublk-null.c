/*
 * A ublk server with nothing behind it: the least that one thread can spend on a request of the kernel's
 * ublk driver. One queue, liburing, the ring and the device's file registered, answers in batches: take
 * every request, answer all, one system call. What is read is what the buffers happen to hold.
 *
 *   ublk-null DISK_BYTES DEPTH IO_BYTES
 *
 * prints "ready /dev/ublkbN" when the device can be used; SIGTERM removes the device and ends.
 *
 *   main      ADD_DEV, SET_PARAMS, START_DEV, waits for SIGTERM, STOP_DEV, DEL_DEV
 *   server    fetches all tags (START_DEV waits for that), answers until the driver aborts its fetches
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/ublk_cmd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Kernels may be built without the plain numbers of the header. */
#define CONTROL(number) _IOWR('u', number, struct ublksrv_ctrl_cmd)
#define IO(number) _IOWR('u', number, struct ublksrv_io_cmd)
#define OPEN_TRIES 300

static struct ublksrv_ctrl_dev_info device;
static int device_fd;
static const struct ublksrv_io_desc *descriptors;
static size_t descriptors_bytes;

static void fail(const char *what, int error)
{
    fprintf(stderr, "ublk-null: %s: %s\n", what, strerror(error));
    exit(1);
}

static void control(const char *what, uint32_t code, struct ublksrv_ctrl_cmd command)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;
    int fd = open("/dev/ublk-control", O_RDWR);
    if (fd < 0)
        fail("/dev/ublk-control", errno);
    int result = io_uring_queue_init(1, &ring, IORING_SETUP_SQE128);
    if (result < 0)
        fail("io_uring_setup", -result);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe == NULL)
        fail("io_uring_get_sqe", EBUSY);
    memset(sqe, 0, 128);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd;
    sqe->off = code; /* cmd_op */
    memcpy(sqe->cmd, &command, sizeof command);
    io_uring_submit(&ring);
    result = io_uring_wait_cqe(&ring, &cqe);
    if (result < 0 || cqe->res < 0)
        fail(what, result < 0 ? -result : -cqe->res);
    io_uring_queue_exit(&ring);
    close(fd);
}

static struct ublksrv_ctrl_cmd of_device(void *data, uint16_t length)
{
    return (struct ublksrv_ctrl_cmd){
        .dev_id = device.dev_id, .queue_id = UINT16_MAX, .len = length, .addr = (uintptr_t)data};
}

static void prepare(struct io_uring *ring, uint32_t code, uint16_t tag, int result, void *buffer)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (sqe == NULL)
        fail("io_uring_get_sqe", EBUSY);
    struct ublksrv_io_cmd command = {.tag = tag, .result = result, .addr = (uintptr_t)buffer};
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->off = code;
    sqe->user_data = tag;
    memcpy(sqe->cmd, &command, sizeof command);
}

static void *serve(void *unused)
{
    struct io_uring ring;
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    int result = io_uring_queue_init(device.queue_depth, &ring, flags);
    if (result < 0)
        fail("io_uring_setup", -result);
    io_uring_register_ring_fd(&ring);
    io_uring_register_files(&ring, &device_fd, 1);
    size_t size = device.max_io_buf_bytes;
    char *buffers = mmap(NULL, size * device.queue_depth, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffers == MAP_FAILED)
        fail("mmap of the buffers", errno);
    for (unsigned tag = 0; tag < device.queue_depth; tag++)
        prepare(&ring, IO(UBLK_IO_FETCH_REQ), (uint16_t)tag, 0, buffers + tag * size);
    unsigned fetching = device.queue_depth;
    while (fetching > 0) {
        struct io_uring_cqe *cqe;
        unsigned head, taken = 0;
        result = io_uring_submit_and_wait(&ring, 1);
        if (result < 0 && result != -EINTR)
            fail("io_uring_enter", -result);
        io_uring_for_each_cqe(&ring, head, cqe) {
            uint16_t tag = (uint16_t)cqe->user_data;
            taken++;
            if (cqe->res != UBLK_IO_RES_OK) {
                fetching--;
                continue;
            }
            const struct ublksrv_io_desc *request = &descriptors[tag];
            uint8_t op = ublksrv_get_op(request);
            int moves = op == UBLK_IO_OP_READ || op == UBLK_IO_OP_WRITE;
            int bytes = moves ? (int)(request->nr_sectors << 9) : 0;
            prepare(&ring, IO(UBLK_IO_COMMIT_AND_FETCH_REQ), tag, bytes, buffers + tag * size);
        }
        io_uring_cq_advance(&ring, taken);
    }
    io_uring_queue_exit(&ring);
    return unused;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        fail("usage: ublk-null DISK_BYTES DEPTH IO_BYTES", EINVAL);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    device = (struct ublksrv_ctrl_dev_info){.nr_hw_queues = 1,
                                            .queue_depth = (uint16_t)atoi(argv[2]),
                                            .max_io_buf_bytes = (uint32_t)atoi(argv[3]),
                                            .dev_id = UINT32_MAX,
                                            .ublksrv_pid = getpid()};
    control("ADD_DEV", CONTROL(UBLK_CMD_ADD_DEV), of_device(&device, sizeof device));
    struct ublk_params params = {.len = sizeof params, .types = UBLK_PARAM_TYPE_BASIC};
    params.basic.attrs = UBLK_ATTR_VOLATILE_CACHE;
    params.basic.logical_bs_shift = 9;
    params.basic.physical_bs_shift = params.basic.io_opt_shift = params.basic.io_min_shift = 12;
    params.basic.max_sectors = device.max_io_buf_bytes >> 9;
    params.basic.dev_sectors = strtoull(argv[1], NULL, 10) >> 9;
    control("SET_PARAMS", CONTROL(UBLK_CMD_SET_PARAMS), of_device(&params, sizeof params));

    char path[32];
    snprintf(path, sizeof path, "/dev/ublkc%u", device.dev_id);
    for (int tries = 0; (device_fd = open(path, O_RDWR)) < 0; tries++) {
        if (tries == OPEN_TRIES)
            fail(path, errno);
        usleep(10000);
    }
    /* A queue's descriptors lie where UBLK_MAX_QUEUE_DEPTH of them would fit; this is queue 0. */
    descriptors_bytes = device.queue_depth * sizeof *descriptors;
    descriptors = mmap(NULL, descriptors_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, device_fd, 0);
    if (descriptors == MAP_FAILED)
        fail("mmap of the descriptors", errno);
    pthread_t server;
    pthread_create(&server, NULL, serve, NULL);
    struct ublksrv_ctrl_cmd start = of_device(NULL, 0);
    start.data[0] = (uint64_t)getpid();
    control("START_DEV", CONTROL(UBLK_CMD_START_DEV), start);
    printf("ready /dev/ublkb%u\n", device.dev_id);
    fflush(stdout);

    int signal;
    sigwait(&ends, &signal);
    control("STOP_DEV", CONTROL(UBLK_CMD_STOP_DEV), of_device(NULL, 0));
    pthread_join(server, NULL);
    /* DEL_DEV waits for both. */
    munmap((void *)(uintptr_t)descriptors, descriptors_bytes);
    close(device_fd);
    control("DEL_DEV", CONTROL(UBLK_CMD_DEL_DEV), of_device(NULL, 0));
    return 0;
}
