/* The process and its threads: hardening, affinity, names. */
#ifndef UBI_PROCESS_H
#define UBI_PROCESS_H

#include "ubi.h"

/* No core dumps, no ptrace by the same user: keys are in this memory. */
int32_t ubi_process_harden(void);
/* Memory that the calling thread, and threads it starts from here on, ask the kernel for is never waited for by way of
 * disk I/O (PR_SET_IO_FLUSHER). -EPERM without CAP_SYS_RESOURCE. */
int32_t ubi_process_flush_io(void);
/* Pins the calling thread. -EINVAL when the CPU is absent or not allowed. */
int32_t ubi_process_pin(uint32_t cpu);
/* 1 when the calling thread may run on `cpu`, else 0. */
int32_t ubi_process_may_run_on(uint32_t cpu);
/* Names the calling thread; at most 15 bytes are kept. */
int32_t ubi_process_name_thread(const char *name);
/* CPU time of a process in nanoseconds, ended threads included, or a negative errno. */
double ubi_process_cpu(int32_t pid);

#endif
