/* Process-wide settings: harden is called once by the main thread, the rest by the thread concerned. */
#define _GNU_SOURCE
#include "process.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

int32_t ubi_process_harden(void) {
    struct rlimit none = {0, 0};
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0) {
        return -errno;
    }
    return 0;
}

int32_t ubi_process_flush_io(void) { return ubi_result(prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0)); }

int32_t ubi_process_pin(uint32_t cpu) {
    if (cpu >= CPU_SETSIZE) {
        return -EINVAL;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return ubi_result(sched_setaffinity(0, sizeof(set), &set));
}

int32_t ubi_process_may_run_on(uint32_t cpu) {
    cpu_set_t set;
    if (cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(set), &set) < 0) {
        return 0;
    }
    return CPU_ISSET(cpu, &set) ? 1 : 0;
}

int32_t ubi_process_name_thread(const char *name) { return ubi_result(prctl(PR_SET_NAME, name, 0, 0, 0)); }

double ubi_process_cpu(int32_t pid) {
    clockid_t clock;
    struct timespec used;
    int error = clock_getcpuclockid(pid, &clock);
    if (error != 0) {
        return -error;
    }
    if (clock_gettime(clock, &used) < 0) {
        return -errno;
    }
    return (double)used.tv_sec * 1e9 + (double)used.tv_nsec;
}
