/* The second library's one exported symbol: a table of names and addresses, as in ../table.c. */
#include "ssl.h"
#include "tls.h"

#include <openssl/ssl.h>

#define ENTRY(function) {#function, (void *)function}

static const struct ubi_entry entries[] = {
    ENTRY(ubi_ssl_start),
    ENTRY(ubi_ssl_xts_create),
    ENTRY(ubi_ssl_xts_run),
    ENTRY(ubi_ssl_xts_destroy),
    ENTRY(ubi_tls_create),
    ENTRY(ubi_tls_destroy),
    ENTRY(ubi_tls_open),
    ENTRY(ubi_tls_close),
    ENTRY(ubi_tls_handshake),
    ENTRY(ubi_tls_read),
    ENTRY(ubi_tls_write),
    ENTRY(ubi_tls_problem),
    {NULL, NULL},
};

UBI_API const struct ubi_entry *ubi_ssl_table(void);

UBI_API const struct ubi_entry *ubi_ssl_table(void) { return entries; }

int32_t ubi_ssl_start(void) {
    uint64_t options = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT;
    return OPENSSL_init_ssl(options, NULL) == 1 ? 0 : -EIO;
}
