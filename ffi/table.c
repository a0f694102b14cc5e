/*
 * The library's one exported symbol: a table of names and addresses. The main thread finds it once; the
 * workers get its address, so that all threads share one copy of the library.
 */
#include "event.h"
#include "file.h"
#include "folder.h"
#include "memory.h"
#include "process.h"
#include "socket.h"
#include "stream.h"
#include "uring.h"
#include "xts.h"

#define ENTRY(function) {#function, (void *)function}

static const struct ubi_entry entries[] = {
    ENTRY(ubi_uring_setup),
    ENTRY(ubi_uring_enter),
    ENTRY(ubi_uring_register),
    ENTRY(ubi_memory_map_anonymous),
    ENTRY(ubi_memory_map_file),
    ENTRY(ubi_memory_unmap),
    ENTRY(ubi_memory_create_shared),
    ENTRY(ubi_memory_seals),
    ENTRY(ubi_memory_page_size),
    ENTRY(ubi_memory_copy),
    ENTRY(ubi_memory_fill),
    ENTRY(ubi_memory_is_zero),
    ENTRY(ubi_memory_wipe),
    ENTRY(ubi_memory_load16),
    ENTRY(ubi_memory_store8),
    ENTRY(ubi_memory_store32),
    ENTRY(ubi_memory_mark_dirty),
    ENTRY(ubi_memory_guard_install),
    ENTRY(ubi_memory_guard_add),
    ENTRY(ubi_memory_guard_remove),
    ENTRY(ubi_memory_guard_faults),
    ENTRY(ubi_socket_listen),
    ENTRY(ubi_socket_adopt),
    ENTRY(ubi_socket_path),
    ENTRY(ubi_socket_tell),
    ENTRY(ubi_socket_probe),
    ENTRY(ubi_socket_connect),
    ENTRY(ubi_socket_pair),
    ENTRY(ubi_socket_accept),
    ENTRY(ubi_socket_receive),
    ENTRY(ubi_socket_send),
    ENTRY(ubi_socket_wait),
    ENTRY(ubi_socket_close),
    ENTRY(ubi_stream_connect),
    ENTRY(ubi_stream_connect_path),
    ENTRY(ubi_stream_error),
    ENTRY(ubi_stream_listen),
    ENTRY(ubi_stream_port),
    ENTRY(ubi_stream_peer),
    ENTRY(ubi_stream_local),
    ENTRY(ubi_stream_tune),
    ENTRY(ubi_stream_untaken),
    ENTRY(ubi_stream_read),
    ENTRY(ubi_stream_write),
    ENTRY(ubi_event_create),
    ENTRY(ubi_event_check),
    ENTRY(ubi_event_signal),
    ENTRY(ubi_event_signal_asking),
    ENTRY(ubi_event_drain),
    ENTRY(ubi_event_relieve),
    ENTRY(ubi_event_create_timer),
    ENTRY(ubi_event_set_timer),
    ENTRY(ubi_event_clock),
    ENTRY(ubi_event_thread_cpu),
    ENTRY(ubi_process_harden),
    ENTRY(ubi_process_flush_io),
    ENTRY(ubi_process_pin),
    ENTRY(ubi_process_may_run_on),
    ENTRY(ubi_process_name_thread),
    ENTRY(ubi_process_cpu),
    ENTRY(ubi_file_probe),
    ENTRY(ubi_file_make_blocking),
    ENTRY(ubi_file_retire),
    ENTRY(ubi_file_lock),
    ENTRY(ubi_file_mark),
    ENTRY(ubi_file_unlock),
    ENTRY(ubi_file_read),
    ENTRY(ubi_file_write),
    ENTRY(ubi_file_read_vector),
    ENTRY(ubi_file_write_vector),
    ENTRY(ubi_file_datasync),
    ENTRY(ubi_file_will_need),
    ENTRY(ubi_file_forget),
    ENTRY(ubi_file_begin_writeback),
    ENTRY(ubi_file_sync_filesystem),
    ENTRY(ubi_file_read_entries),
    ENTRY(ubi_file_allocate),
    ENTRY(ubi_folder_open),
    ENTRY(ubi_folder_make),
    ENTRY(ubi_folder_rename),
    ENTRY(ubi_folder_link),
    ENTRY(ubi_folder_unlink),
    ENTRY(ubi_folder_rename_new),
    UBI_XTS_ENTRIES
    {NULL, NULL},
};

UBI_API const struct ubi_entry *ubi_table(void);

UBI_API const struct ubi_entry *ubi_table(void) { return entries; }
