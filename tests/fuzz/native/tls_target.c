/*
 * Fuzzes ffi/ssl/tls.c and ffi/stream.c: a client and a server with the same key, or with two, and between them a wire
 * that changes, drops, doubles and makes up bytes as the input says; or a peer that is nothing but the input. What one
 * side reads is what the other wrote, from its beginning, or the session has failed; and addresses of any text.
 */
#define _GNU_SOURCE
#include "../../../ffi/socket.h"
#include "../../../ffi/ssl/ssl.h"
#include "../../../ffi/ssl/tls.h"
#include "../../../ffi/stream.h"
#include "fuzz.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURNS 60
#define DATA 4096

struct side {
    void *context;
    void *session;
    int32_t fd;
    int wire;
    int is_ready;
    int is_over;
    uint32_t written;
    uint32_t read;
    uint8_t sent[DATA];
};

static void open_side(struct side *side, struct ubi_tls_key *key, uint32_t is_server, uint64_t seed) {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    memset(side, 0, sizeof(*side));
    key->is_server = is_server;
    side->fd = fds[0];
    side->wire = fds[1];
    side->context = ubi_tls_create(key);
    CHECK(side->context != NULL);
    side->session = ubi_tls_open(side->context, side->fd);
    CHECK(side->session != NULL);
    fill_bytes(side->sent, DATA, seed);
}

static void close_side(struct side *side) {
    ubi_tls_close(side->session);
    ubi_tls_destroy(side->context);
    ubi_socket_close(side->fd);
    if (side->wire >= 0) {
        close(side->wire);
    }
}

/* The code of a call: whether the session goes on. */
static void learn(struct side *side, int32_t result) {
    if (result == UBI_TLS_WANT_READ || result == UBI_TLS_WANT_WRITE || result > 0) {
        return;
    }
    char text[16];
    CHECK(ubi_tls_problem(side->session, text, sizeof(text)) <= (int32_t)sizeof(text));
    side->is_over = 1;
}

static void turn(struct side *side, const struct side *other, struct input *input) {
    if (side->is_over) {
        return;
    }
    if (!side->is_ready) {
        int32_t result = ubi_tls_handshake(side->session);
        side->is_ready = result == UBI_TLS_READY;
        learn(side, result);
        return;
    }
    if (side->written < DATA) {
        uint32_t length = 1 + take16(input) % (DATA - side->written);
        int32_t result = ubi_tls_write(side->session, side->sent + side->written, length);
        CHECK(result <= (int32_t)length);
        learn(side, result);
        if (result < 0) {
            return;
        }
        side->written += (uint32_t)result;
    }
    uint8_t bytes[700];
    uint32_t length = 1 + take16(input) % sizeof(bytes);
    int32_t result = ubi_tls_read(side->session, bytes, length);
    CHECK(result <= (int32_t)length);
    learn(side, result);
    if (result > 0) {
        CHECK(other != NULL && side->read + (uint32_t)result <= other->written);
        CHECK(memcmp(bytes, other->sent + side->read, (uint32_t)result) == 0);
        side->read += (uint32_t)result;
    }
}

/* Carries what one side sent to the other, changed as the input says. Mostly it is not. */
static void carry(struct side *from, struct side *to, struct input *input) {
    uint8_t bytes[4096];
    if (from->wire < 0 || to->wire < 0) {
        return;
    }
    uint8_t kind = take8(input);
    size_t most = kind < 128 ? sizeof(bytes) : 1U + kind % 100U;
    ssize_t length = read(from->wire, bytes, most);
    if (length <= 0) {
        return;
    }
    size_t at = take16(input) % (size_t)length;
    switch (kind % 32) { /* zeros, which come at the end of the input, change nothing */
    case 6:
        bytes[at] = (uint8_t)(bytes[at] ^ (1 + take8(input) % 255));
        break;
    case 1: /* dropped */
        return;
    case 2: /* cut off */
        length = (ssize_t)at;
        break;
    case 3: /* twice */
        (void)write(to->wire, bytes, (size_t)length);
        break;
    case 4: /* made up */
        take_bytes(input, bytes, at < 64 ? at : 64);
        break;
    case 5:
        (void)write(to->wire, bytes, (size_t)length);
        close(to->wire);
        to->wire = -1;
        return;
    default:
        break;
    }
    (void)write(to->wire, bytes, (size_t)length);
}

static void make_key(struct ubi_tls_key *key, struct input *input) {
    memset(key, 0, sizeof(*key));
    key->identity_length = 1 + take8(input) % UBI_TLS_IDENTITY_MAX;
    key->secret_length = 16 + take16(input) % (UBI_TLS_SECRET_MAX - 15);
    memset(key->identity, 'i', key->identity_length);
    memset(key->secret, 0x42, key->secret_length);
}

static void talk(struct input *input) {
    struct ubi_tls_key key;
    make_key(&key, input);
    static struct side client;
    static struct side server;
    open_side(&server, &key, 1, 1);
    int is_other_key = take8(input) % 16 == 1;
    if (is_other_key) {
        key.secret[0] ^= 1;
    }
    open_side(&client, &key, 0, 2);
    int is_calm = !is_other_key && input->left == 0;
    for (int i = 0; i < TURNS; i++) {
        turn(&client, &server, input);
        turn(&server, &client, input);
        carry(&client, &server, input);
        carry(&server, &client, input);
    }
    CHECK(!is_calm || (client.read > 0 && server.read > 0)); /* nothing was changed: they understood each other */
    close_side(&client);
    close_side(&server);
}

/* A peer that knows no key: whatever it says, no session becomes ready. */
static void listen_to(struct input *input, uint32_t is_server) {
    struct ubi_tls_key key;
    make_key(&key, input);
    static struct side side;
    open_side(&side, &key, is_server, 1);
    while (input->left > 0) {
        uint8_t bytes[256];
        size_t length = 1 + take8(input);
        take_bytes(input, bytes, length > input->left ? input->left : length);
        (void)write(side.wire, bytes, length > sizeof(bytes) ? sizeof(bytes) : length);
        turn(&side, NULL, input);
        CHECK(!side.is_ready);
        (void)read(side.wire, bytes, sizeof(bytes));
    }
    close_side(&side);
}

static void refuse_keys(struct input *input) {
    struct ubi_tls_key key;
    make_key(&key, input);
    key.identity_length = take32(input);
    key.secret_length = take32(input);
    void *context = ubi_tls_create(&key);
    int is_right = key.identity_length <= UBI_TLS_IDENTITY_MAX && key.secret_length <= UBI_TLS_SECRET_MAX;
    CHECK(context == NULL || is_right);
    if (context != NULL) {
        ubi_tls_destroy(context);
    }
}

static void use_address(struct input *input) {
    static const char *const hosts[] = {"127.0.0.1", "::1", "localhost", "127.1", "0x7f000001", "::ffff:127.0.0.1", ""};
    char host[64];
    char name[UBI_STREAM_NAME_MAX];
    uint8_t choice = take8(input);
    if (choice < 128) {
        snprintf(host, sizeof(host), "%s", hosts[choice % 7]);
    } else {
        size_t length = take8(input) % sizeof(host);
        take_bytes(input, (uint8_t *)host, length);
        host[length == 0 ? 0 : length - 1] = '\0';
        if (length == 0) {
            host[0] = '\0';
        }
    }
    uint32_t port = choice % 2 == 0 ? 0 : take32(input);
    int32_t fd = ubi_stream_listen(host, port, 4);
    if (fd >= 0) {
        uint32_t room = take8(input) % (sizeof(name) + 1);
        int32_t length = ubi_stream_local(fd, name, room);
        CHECK(length >= 0 && (uint32_t)length <= room && ubi_stream_port(fd) > 0 && ubi_stream_untaken(fd) <= 0);
        CHECK(ubi_stream_peer(fd, name, room) == -ENOTCONN && ubi_stream_tune(fd) == 0);
        ubi_socket_close(fd);
    }
    CHECK(ubi_stream_connect_path(host) < 0 || host[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int is_started;
    if (!is_started) {
        is_started = 1;
        CHECK(ubi_ssl_start() == 0);
    }
    struct input input = {data, size};
    switch (take8(&input) % 8) {
    case 0:
        listen_to(&input, 1);
        break;
    case 1:
        listen_to(&input, 0);
        break;
    case 2:
        use_address(&input);
        break;
    case 3:
        refuse_keys(&input);
        break;
    default:
        talk(&input);
    }
    return 0;
}
