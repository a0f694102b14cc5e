/* Mappings, copies by address, and the guard against front ends that cut off their shared memory. */
#ifndef UBI_MEMORY_H
#define UBI_MEMORY_H

#include "ubi.h"

/* Page-aligned, zeroed. Returns the address or -errno. */
double ubi_memory_map_anonymous(double length);

/* Shared mapping of a descriptor; `offset` a multiple of the page size. Returns the address or -errno. */
double ubi_memory_map_file(int32_t fd, double offset, double length, uint32_t writable);

int32_t ubi_memory_unmap(double address, double length);

/* A memfd of `length` bytes that cannot shrink. Returns a descriptor. */
int32_t ubi_memory_create_shared(double length);

/* F_GET_SEALS of a descriptor, or -errno where it has none. */
int32_t ubi_memory_seals(int32_t fd);

/* Page size behind a descriptor: huge page size on hugetlbfs, else the system's. */
double ubi_memory_page_size(int32_t fd);

/* Copies; the areas may overlap. */
void ubi_memory_copy(void *target, const void *source, uint32_t length);
void ubi_memory_fill(void *target, uint32_t value, uint32_t length);
/* 1 when all bytes are zero, else 0. */
int32_t ubi_memory_is_zero(const void *memory, uint32_t length);
/* Zeroes what held a key: never optimised away. */
void ubi_memory_wipe(void *target, uint32_t length);

/* One 16-byte snapshot at any alignment: a descriptor or request header that its owner may be changing. */
void ubi_memory_load16(void *target, const void *source);
void ubi_memory_store8(void *target, uint32_t value);
void ubi_memory_store32(void *target, uint32_t value);

/*
 * Sets the bits of the pages that `length` bytes at `address` lie in, in a log of `log_bytes` with one bit for
 * each page of 4096 bytes from address 0 on. Another process may read and clear it meanwhile. Pages behind its end
 * are left out.
 */
void ubi_memory_mark_dirty(void *log, double log_bytes, double address, double length);

/*
 * SIGBUS inside a guarded range maps a page of zeros over the fault and counts it; elsewhere the signal
 * takes its earlier course. Ranges are added and removed by one thread.
 */
int32_t ubi_memory_guard_install(void);
int32_t ubi_memory_guard_add(double address, double length, double page_size);
int32_t ubi_memory_guard_remove(double address);
/* Faults seen since the start of the process. */
double ubi_memory_guard_faults(void);

#endif
