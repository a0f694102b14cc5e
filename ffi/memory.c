/*
 * Memory by address. Mappings belong to whoever made them (TypeScript keeps the address and length and
 * unmaps after the last I/O that used them). The guard's table is process-wide because a signal handler
 * is: the control worker writes it, the handler of any thread reads it.
 */
#define _GNU_SOURCE
#include "memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#define GUARD_RANGES_MAX 2048
#define HUGE_PAGE_BYTES (2.0 * 1024 * 1024)

/*
 * In huge pages a megabyte of I/O is one segment and not 256, of which a disk's ring holds few: others' requests and
 * flushes do not stand behind them.
 */
double ubi_memory_map_anonymous(double length) {
    void *address = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) {
        return -(double)errno;
    }
    if (length >= HUGE_PAGE_BYTES) {
        (void)madvise(address, (size_t)length, MADV_HUGEPAGE); /* a wish: without them all works as well */
    }
    return ubi_address(address);
}

double ubi_memory_map_file(int32_t fd, double offset, double length, uint32_t writable) {
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *address = mmap(NULL, (size_t)length, protection, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);
    return address == MAP_FAILED ? -(double)errno : ubi_address(address);
}

int32_t ubi_memory_unmap(double address, double length) {
    return ubi_result(munmap(ubi_pointer(address), (size_t)length));
}

int32_t ubi_memory_create_shared(double length) {
    int fd = memfd_create("ubiblk-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)length) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int32_t ubi_memory_seals(int32_t fd) { return ubi_result(fcntl(fd, F_GET_SEALS)); }

double ubi_memory_page_size(int32_t fd) {
    struct statfs info;
    if (fstatfs(fd, &info) == 0 && info.f_type == HUGETLBFS_MAGIC) {
        return (double)info.f_bsize;
    }
    return (double)sysconf(_SC_PAGESIZE);
}

void ubi_memory_copy(void *target, const void *source, uint32_t length) { memmove(target, source, length); }

void ubi_memory_fill(void *target, uint32_t value, uint32_t length) { memset(target, (int)value, length); }

#define ZERO_LANES 8 /* 64 bytes a step: the compiler makes vector instructions of a loop over them */

int32_t ubi_memory_is_zero(const void *memory, uint32_t length) {
    const uint8_t *bytes = memory;
    uint32_t at = 0;
    for (; at + sizeof(uint64_t[ZERO_LANES]) <= length; at += sizeof(uint64_t[ZERO_LANES])) {
        uint64_t lanes[ZERO_LANES];
        memcpy(lanes, bytes + at, sizeof(lanes));
        uint64_t any = 0;
        for (uint32_t lane = 0; lane < ZERO_LANES; lane++) {
            any |= lanes[lane];
        }
        if (any != 0) {
            return 0;
        }
    }
    for (; at < length; at++) {
        if (bytes[at] != 0) {
            return 0;
        }
    }
    return 1;
}

void ubi_memory_wipe(void *target, uint32_t length) { explicit_bzero(target, length); }

void ubi_memory_load16(void *target, const void *source) { memcpy(target, source, 16); }

void ubi_memory_store8(void *target, uint32_t value) { *(volatile uint8_t *)target = (uint8_t)value; }

void ubi_memory_store32(void *target, uint32_t value) { memcpy(target, &value, sizeof(value)); }

#define LOG_PAGE_SHIFT 12

void ubi_memory_mark_dirty(void *log, double log_bytes, double address, double length) {
    if (length < 1) {
        return;
    }
    uint64_t page_count = (uint64_t)log_bytes * 8;
    uint64_t page = (uint64_t)address >> LOG_PAGE_SHIFT;
    uint64_t end = (((uint64_t)address + (uint64_t)length - 1) >> LOG_PAGE_SHIFT) + 1;
    end = end < page_count ? end : page_count;
    _Atomic uint8_t *bytes = log;
    while (page < end) {
        uint64_t byte = page / 8;
        unsigned mask = 0;
        for (; page < end && page / 8 == byte; page++) {
            mask |= 1u << (page % 8);
        }
        /* SAFETY: page < page_count, so the byte lies in the log. A full barrier: what was written is seen by
           whoever clears the bit afterwards. */
        atomic_fetch_or(&bytes[byte], (uint8_t)mask);
    }
}

/* A slot is free while `length` is 0: the writer stores length last, and clears it first. */
struct guard_range {
    _Atomic uint64_t length;
    uint64_t address;
    uint64_t page_size;
};

static struct guard_range guard_ranges[GUARD_RANGES_MAX];
static _Atomic uint64_t guard_fault_count;
static struct sigaction guard_previous;

static int guard_cover(uintptr_t fault) {
    for (int i = 0; i < GUARD_RANGES_MAX; i++) {
        uint64_t length = atomic_load_explicit(&guard_ranges[i].length, memory_order_acquire);
        if (length == 0 || fault < guard_ranges[i].address || fault - guard_ranges[i].address >= length) {
            continue;
        }
        uint64_t page_size = guard_ranges[i].page_size;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        /* SAFETY: the page lies inside a mapping that this process made and that no longer has a file page. */
        void *page = (void *)(fault & ~(uintptr_t)(page_size - 1));
        return mmap(page, page_size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED ? 0 : 1;
    }
    return 0;
}

static void guard_handler(int number, siginfo_t *info, void *context) {
    int error = errno;
    /* Only what lies behind the end of a file: zeros in place of broken memory (BUS_MCEERR_AR) would be
       written to the disk as the guest's data. */
    if (info->si_code == BUS_ADRERR && guard_cover((uintptr_t)info->si_addr)) {
        atomic_fetch_add(&guard_fault_count, 1);
        errno = error;
        return;
    }
    if ((guard_previous.sa_flags & SA_SIGINFO) != 0 && guard_previous.sa_sigaction != NULL) {
        guard_previous.sa_sigaction(number, info, context);
    } else if (guard_previous.sa_handler != SIG_DFL && guard_previous.sa_handler != SIG_IGN) {
        guard_previous.sa_handler(number);
    } else {
        signal(number, SIG_DFL); /* the faulting access runs again and ends the process */
    }
    errno = error;
}

int32_t ubi_memory_guard_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = guard_handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    struct sigaction current;
    if (sigaction(SIGBUS, NULL, &current) < 0) {
        return -errno;
    }
    if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == guard_handler) {
        return 0;
    }
    return ubi_result(sigaction(SIGBUS, &action, &guard_previous));
}

int32_t ubi_memory_guard_add(double address, double length, double page_size) {
    for (int i = 0; i < GUARD_RANGES_MAX; i++) {
        if (atomic_load_explicit(&guard_ranges[i].length, memory_order_relaxed) == 0) {
            guard_ranges[i].address = (uint64_t)address;
            guard_ranges[i].page_size = (uint64_t)page_size;
            atomic_store_explicit(&guard_ranges[i].length, (uint64_t)length, memory_order_release);
            return 0;
        }
    }
    return -ENOSPC;
}

int32_t ubi_memory_guard_remove(double address) {
    for (int i = 0; i < GUARD_RANGES_MAX; i++) {
        if (atomic_load_explicit(&guard_ranges[i].length, memory_order_relaxed) != 0 &&
            guard_ranges[i].address == (uint64_t)address) {
            atomic_store_explicit(&guard_ranges[i].length, 0, memory_order_release);
            return 0;
        }
    }
    return -ENOENT;
}

double ubi_memory_guard_faults(void) { return (double)atomic_load(&guard_fault_count); }
