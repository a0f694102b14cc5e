/*
 * TLS 1.2 with a pre-shared key, PSK-AES256-GCM-SHA384 and nothing else, on connected non-blocking sockets.
 * Sessions read and write memory of the caller; a call moves what it can and never waits.
 */
#ifndef UBI_TLS_H
#define UBI_TLS_H

#include "../ubi.h"

#define UBI_TLS_READY 1
/* Beyond any errno: call again when the descriptor can be read, or written. */
#define UBI_TLS_WANT_READ (-5001)
#define UBI_TLS_WANT_WRITE (-5002)
/* TLS itself failed; ubi_tls_problem has the text. */
#define UBI_TLS_FAILED (-5003)

#define UBI_TLS_IDENTITY_MAX 255
#define UBI_TLS_SECRET_MAX 512

/* What a context is made from. The identity has no NUL; the lengths are those of its parts in use. */
struct ubi_tls_key {
    uint32_t is_server;
    uint32_t identity_length;
    uint32_t secret_length;
    uint8_t identity[UBI_TLS_IDENTITY_MAX + 1];
    uint8_t secret[UBI_TLS_SECRET_MAX];
};

/* A context with a copy of the key, NULL when there is no memory or the key is out of its bounds. */
void *ubi_tls_create(const struct ubi_tls_key *key);
/* Wipes the key. Sessions that are left go on, but no handshake of theirs can succeed any more. */
void ubi_tls_destroy(void *context);

/* A session on `fd`, which stays the caller's; NULL when there is no memory. */
void *ubi_tls_open(void *context, int32_t fd);
/* Ends the session without a word to the peer, and wipes its keys. */
void ubi_tls_close(void *session);

/* UBI_TLS_READY, 0 when the peer closed, UBI_TLS_WANT_*, UBI_TLS_FAILED or -errno. */
int32_t ubi_tls_handshake(void *session);
/* Bytes moved, 0 when the peer closed, or a code as above. */
int32_t ubi_tls_read(void *session, void *buffer, uint32_t length);
/* After UBI_TLS_WANT_* the next call must begin with the same bytes, wherever they lie. */
int32_t ubi_tls_write(void *session, const void *buffer, uint32_t length);
/* Why the last call failed: `length` bytes at most without a NUL, its length. */
int32_t ubi_tls_problem(void *session, char *text, uint32_t length);

#endif
