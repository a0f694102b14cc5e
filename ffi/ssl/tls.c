/*
 * A context is made once for a side and a key; it counts its users, so that it goes when the last session
 * and its owner have let go. The key of a destroyed context is wiped at once. Contexts and their sessions
 * belong to one thread. A session's socket stays its caller's, who closes it after the session.
 *
 * OpenSSL's own socket BIO writes with write(2), which raises SIGPIPE; the one here does not.
 */
#include "tls.h"

#include "ssl.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define CIPHER "PSK-AES256-GCM-SHA384"
#define PROBLEM_MAX 160
/* Several records of 16 KiB come with one system call. */
#define READ_BUFFER (128 * 1024)

struct context {
    SSL_CTX *tls;
    BIO_METHOD *socket_method;
    uint32_t users;
    struct ubi_tls_key key;
};

struct session {
    struct context *context;
    SSL *tls;
    int32_t end; /* how the session ended; meaningless while is_ended is 0 */
    int32_t is_ended;
    size_t named_length; /* bytes of the identity as the client sent it */
    char problem[PROBLEM_MAX];
};

/* --- the socket --- */

static int socket_of(BIO *bio) { return (int)(intptr_t)BIO_get_data(bio); }

static int has_to_wait(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

static int socket_read(BIO *bio, char *buffer, int length) {
    ssize_t moved;
    BIO_clear_retry_flags(bio);
    do {
        moved = recv(socket_of(bio), buffer, (size_t)length, 0);
    } while (moved < 0 && errno == EINTR);
    if (moved < 0 && has_to_wait(errno)) {
        BIO_set_retry_read(bio);
    }
    if (moved == 0) {
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    }
    return (int)moved;
}

static int socket_write(BIO *bio, const char *buffer, int length) {
    ssize_t moved;
    BIO_clear_retry_flags(bio);
    do {
        moved = send(socket_of(bio), buffer, (size_t)length, MSG_NOSIGNAL);
    } while (moved < 0 && errno == EINTR);
    if (moved < 0 && has_to_wait(errno)) {
        BIO_set_retry_write(bio);
    }
    return (int)moved;
}

static long socket_control(BIO *bio, int command, long number, void *pointer) {
    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF) {
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    }
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *new_socket_method(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socket without signals");
    if (method != NULL && BIO_meth_set_read(method, socket_read) == 1 &&
        BIO_meth_set_write(method, socket_write) == 1 && BIO_meth_set_ctrl(method, socket_control) == 1) {
        return method;
    }
    BIO_meth_free(method);
    return NULL;
}

static BIO *new_socket(struct context *context, int fd) {
    BIO *bio = BIO_new(context->socket_method);
    if (bio != NULL) {
        BIO_set_data(bio, (void *)(intptr_t)fd);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* --- the key --- */

static const struct ubi_tls_key *key_of(SSL *tls) {
    const struct session *session = SSL_get_app_data(tls);
    return &session->context->key;
}

static unsigned int copy_secret(const struct ubi_tls_key *key, unsigned char *secret, unsigned int secret_max) {
    if (key->secret_length > secret_max) {
        return 0;
    }
    memcpy(secret, key->secret, key->secret_length);
    return key->secret_length;
}

static unsigned int give_client_key(SSL *tls, const char *hint, char *identity, unsigned int identity_max,
                                    unsigned char *secret, unsigned int secret_max) {
    const struct ubi_tls_key *key = key_of(tls);
    (void)hint;
    if (key->identity_length + 1 > identity_max) {
        return 0;
    }
    memcpy(identity, key->identity, key->identity_length);
    identity[key->identity_length] = '\0';
    return copy_secret(key, secret, secret_max);
}

/*
 * OpenSSL gives an identity as text, which a NUL ends: how long it was is seen in its message, which comes here whole
 * before its identity is asked for.
 */
static void note_message(int is_sent, int version, int type, const void *message, size_t length, SSL *tls,
                         void *unused) {
    const uint8_t *bytes = message;
    struct session *session = SSL_get_app_data(tls);
    (void)version;
    (void)unused;
    if (!is_sent && type == SSL3_RT_HANDSHAKE && length >= SSL3_HM_HEADER_LENGTH + 2 &&
        bytes[0] == SSL3_MT_CLIENT_KEY_EXCHANGE) {
        session->named_length = (size_t)bytes[SSL3_HM_HEADER_LENGTH] << 8 | bytes[SSL3_HM_HEADER_LENGTH + 1];
    }
}

/* Any length of a name is fine, and none takes longer than another. 0 lets OpenSSL answer: unknown identity. */
static unsigned int find_server_key(SSL *tls, const char *identity, unsigned char *secret,
                                    unsigned int secret_max) {
    const struct ubi_tls_key *key = key_of(tls);
    const struct session *session = SSL_get_app_data(tls);
    uint8_t given[UBI_TLS_IDENTITY_MAX + 1] = {0};
    size_t length = identity == NULL ? 0 : strlen(identity);
    size_t used = length < sizeof(given) ? length : sizeof(given);
    memcpy(given, identity == NULL ? "" : identity, used);
    int differs = CRYPTO_memcmp(given, key->identity, sizeof(given)) != 0;
    differs |= length != key->identity_length;
    differs |= session->named_length != key->identity_length;
    return differs ? 0 : copy_secret(key, secret, secret_max);
}

/* --- contexts --- */

static SSL_CTX *new_context(const struct ubi_tls_key *key) {
    SSL_CTX *tls = SSL_CTX_new(key->is_server ? TLS_server_method() : TLS_client_method());
    if (tls == NULL || SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(tls, TLS1_2_VERSION) != 1 || SSL_CTX_set_cipher_list(tls, CIPHER) != 1) {
        SSL_CTX_free(tls);
        return NULL;
    }
    /* Peers close without a farewell; whoever reads knows from the protocol above what is missing. */
    SSL_CTX_set_options(tls, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, READ_BUFFER);
    if (key->is_server) {
        SSL_CTX_set_msg_callback(tls, note_message);
        SSL_CTX_set_psk_server_callback(tls, find_server_key);
    } else {
        SSL_CTX_set_psk_client_callback(tls, give_client_key);
    }
    return tls;
}

static int is_key(const struct ubi_tls_key *key) {
    return key->identity_length > 0 && key->identity_length <= UBI_TLS_IDENTITY_MAX && key->secret_length > 0 &&
           key->secret_length <= UBI_TLS_SECRET_MAX &&
           memchr(key->identity, '\0', key->identity_length) == NULL;
}

static void release(struct context *context) {
    context->users--;
    if (context->users > 0) {
        return;
    }
    SSL_CTX_free(context->tls);
    BIO_meth_free(context->socket_method);
    OPENSSL_clear_free(context, sizeof(*context));
}

void *ubi_tls_create(const struct ubi_tls_key *key) {
    if (!is_key(key)) {
        return NULL;
    }
    struct context *context = OPENSSL_zalloc(sizeof(*context));
    if (context == NULL) {
        return NULL;
    }
    context->users = 1;
    context->key.is_server = key->is_server;
    context->key.identity_length = key->identity_length;
    context->key.secret_length = key->secret_length;
    memcpy(context->key.identity, key->identity, key->identity_length);
    memcpy(context->key.secret, key->secret, key->secret_length);
    context->socket_method = new_socket_method();
    context->tls = new_context(key);
    if (context->tls == NULL || context->socket_method == NULL) {
        release(context);
        return NULL;
    }
    return context;
}

void ubi_tls_destroy(void *memory) {
    struct context *context = memory;
    OPENSSL_cleanse(&context->key, sizeof(context->key)); /* a length of 0 refuses handshakes */
    release(context);
}

/* --- sessions --- */

void *ubi_tls_open(void *memory, int32_t fd) {
    struct context *context = memory;
    struct session *session = OPENSSL_zalloc(sizeof(*session));
    SSL *tls = SSL_new(context->tls);
    BIO *bio = new_socket(context, fd);
    if (session == NULL || tls == NULL || bio == NULL) {
        OPENSSL_free(session);
        SSL_free(tls);
        BIO_free(bio);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_bio(tls, bio, bio); /* both directions: the session owns it once */
    SSL_set_app_data(tls, session);
    if (context->key.is_server) {
        SSL_set_accept_state(tls);
    } else {
        SSL_set_connect_state(tls);
    }
    session->tls = tls;
    session->context = context;
    context->users++;
    return session;
}

void ubi_tls_close(void *memory) {
    struct session *session = memory;
    SSL_free(session->tls);
    release(session->context);
    OPENSSL_clear_free(session, sizeof(*session));
}

/* The first error of the protocol is the cause: those before it are of single ciphers, those behind follow. */
static void keep_problem(struct session *session) {
    const char *reason = NULL;
    unsigned long code;
    while ((code = ERR_get_error()) != 0) {
        if (reason == NULL || ERR_GET_LIB(code) == ERR_LIB_SSL) {
            reason = ERR_reason_error_string(code);
        }
        if (ERR_GET_LIB(code) == ERR_LIB_SSL) {
            break;
        }
    }
    snprintf(session->problem, sizeof(session->problem), "%s", reason == NULL ? "unknown failure" : reason);
}

static int32_t end_of(struct session *session, int result, int error) {
    switch (SSL_get_error(session->tls, result)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        return -error;
    default:
        keep_problem(session);
        return UBI_TLS_FAILED;
    }
}

/* What a call that moved nothing returns. An end is remembered: OpenSSL tells its reason only once. */
static int32_t hindrance(struct session *session, int result, int error) {
    switch (SSL_get_error(session->tls, result)) {
    case SSL_ERROR_WANT_READ:
        return UBI_TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return UBI_TLS_WANT_WRITE;
    default:
        session->end = end_of(session, result, error);
        session->is_ended = 1;
        ERR_clear_error();
        return session->end;
    }
}

static void prepare_call(void) {
    ERR_clear_error();
    errno = 0;
}

int32_t ubi_tls_handshake(void *memory) {
    struct session *session = memory;
    if (session->is_ended) {
        return session->end;
    }
    prepare_call();
    int result = SSL_do_handshake(session->tls);
    return result == 1 ? UBI_TLS_READY : hindrance(session, result, errno);
}

int32_t ubi_tls_read(void *memory, void *buffer, uint32_t length) {
    struct session *session = memory;
    uint8_t *target = buffer;
    uint32_t used = 0;
    /* A record has 16 KiB at most: all that came are taken at once. */
    while (used < length && !session->is_ended) {
        size_t moved = 0;
        prepare_call();
        int result = SSL_read_ex(session->tls, target + used, length - used, &moved);
        if (result != 1) {
            int32_t why = hindrance(session, result, errno);
            return used > 0 ? (int32_t)used : why; /* an end is met again by the next call */
        }
        used += (uint32_t)moved;
    }
    return used > 0 || length == 0 ? (int32_t)used : session->end;
}

int32_t ubi_tls_write(void *memory, const void *buffer, uint32_t length) {
    struct session *session = memory;
    size_t moved = 0;
    /* A peer that has said its last word may still listen. */
    if (session->is_ended && session->end != 0) {
        return session->end;
    }
    prepare_call();
    int result = SSL_write_ex(session->tls, buffer, length, &moved);
    return result == 1 ? (int32_t)moved : hindrance(session, result, errno);
}

int32_t ubi_tls_problem(void *memory, char *text, uint32_t length) {
    const struct session *session = memory;
    size_t whole = strlen(session->problem);
    uint32_t used = whole < length ? (uint32_t)whole : length;
    memcpy(text, session->problem, used);
    return (int32_t)used;
}
