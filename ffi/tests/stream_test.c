/*
 * Tests stream sockets and TLS on them from C, so that the sanitizers see them: both sides in one process,
 * and between them a wire that can be changed. Ends with code 1 at the first thing that is not as it should be.
 *
 *   stream_test FOLDER       FOLDER is empty and ours
 */
#define _GNU_SOURCE
#include "../ssl/ssl.h"
#include "../ssl/tls.h"
#include "../socket.h"
#include "../stream.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition);                            \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define DATA (1024 * 1024)
#define TURNS_MAX 100000

static uint8_t sent[DATA];
static uint8_t received[DATA];

static int wait_for(int fd, short events) {
    struct pollfd wait = {.fd = fd, .events = events};
    return ubi_socket_wait(&wait, 1, 5000);
}

static void test_addresses(const char *host) {
    char name[UBI_STREAM_NAME_MAX];
    char expected[UBI_STREAM_NAME_MAX];
    int32_t listener = ubi_stream_listen(host, 0, 4);
    CHECK(listener >= 0);
    int32_t port = ubi_stream_port(listener);
    CHECK(port > 0 && ubi_stream_listen(host, (uint32_t)port, 4) == -EADDRINUSE);
    int32_t client = ubi_stream_connect(host, (uint32_t)port);
    CHECK(client >= 0 && wait_for(client, POLLOUT) == 1 && ubi_stream_error(client) == 0);
    CHECK(wait_for(listener, POLLIN) == 1);
    int32_t served = ubi_socket_accept(listener);
    CHECK(served >= 0 && ubi_stream_tune(served) == 0 && ubi_stream_tune(client) == 0);
    CHECK((fcntl(client, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(client, F_GETFL) & O_NONBLOCK) != 0);
    int32_t length = ubi_stream_peer(client, name, sizeof(name));
    snprintf(expected, sizeof(expected), strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    CHECK(length == (int32_t)strlen(expected) && memcmp(name, expected, strlen(expected)) == 0);
    CHECK(ubi_stream_peer(client, name, 3) == 3);
    CHECK(ubi_stream_local(listener, name, sizeof(name)) == length && memcmp(name, expected, (size_t)length) == 0);
    CHECK(ubi_stream_read(served, name, sizeof(name)) == -EAGAIN);
    CHECK(ubi_stream_write(client, "hello", 5) == 5 && wait_for(served, POLLIN) == 1);
    CHECK(ubi_stream_read(served, name, sizeof(name)) == 5 && memcmp(name, "hello", 5) == 0);
    ubi_socket_close(client);
    CHECK(wait_for(served, POLLIN) == 1 && ubi_stream_read(served, name, sizeof(name)) == 0);
    CHECK(ubi_stream_write(served, "a", 1) == 1); /* the kernel learns of the end by this one */
    usleep(10000);
    CHECK(ubi_stream_write(served, "b", 1) == -EPIPE); /* and no signal ends the test */
    ubi_socket_close(served);
    ubi_socket_close(listener);
    client = ubi_stream_connect(host, (uint32_t)port);
    CHECK(client == -ECONNREFUSED || (wait_for(client, POLLOUT) == 1 && ubi_stream_error(client) == -ECONNREFUSED));
}

static void test_paths(const char *folder) {
    char path[200];
    char longest[200];
    char name[8];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    snprintf(path, sizeof(path), "%s/socket", folder);
    CHECK(ubi_stream_connect_path(path) == -ENOENT);
    CHECK(ubi_stream_connect_path(longest) == -ENAMETOOLONG && ubi_stream_connect_path("") == -ENAMETOOLONG);
    CHECK(ubi_stream_connect("example", 1) == -EINVAL && ubi_stream_connect("127.0.0.1", 65536) == -EINVAL);
    CHECK(ubi_stream_listen("::zz", 1, 1) == -EINVAL);
    int32_t listener = ubi_socket_listen(path, 0600, UINT32_MAX, UINT32_MAX, 1);
    int32_t client = ubi_stream_connect_path(path);
    CHECK(client >= 0 && ubi_stream_error(client) == 0 && ubi_stream_tune(client) == 0);
    CHECK(ubi_stream_peer(client, name, sizeof(name)) == 0 && ubi_stream_port(listener) == 0);
    ubi_socket_close(client);
    ubi_socket_close(listener);
    CHECK(ubi_stream_error(listener) == -EBADF && ubi_stream_port(listener) == -EBADF);
}

/* --- TLS --- */

/* A client and a server, and the wire between them: two socket pairs with a relay in the middle. */
struct world {
    int client[2];
    int server[2];
    void *client_session;
    void *server_session;
    uint64_t relayed;
    /* The byte of what the server sends that is changed; none when 0. */
    uint64_t flipped;
};

static struct ubi_tls_key key_of(uint32_t is_server, const char *identity, const char *secret) {
    struct ubi_tls_key key = {.is_server = is_server};
    key.identity_length = (uint32_t)strlen(identity);
    key.secret_length = (uint32_t)strlen(secret);
    memcpy(key.identity, identity, key.identity_length);
    memcpy(key.secret, secret, key.secret_length);
    return key;
}

static void open_world(struct world *world, const char *identity, const char *secret) {
    memset(world, 0, sizeof(*world));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, world->client) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, world->server) == 0);
    struct ubi_tls_key ours = key_of(1, "me", "0123456789abcdef");
    struct ubi_tls_key theirs = key_of(0, identity, secret);
    void *server = ubi_tls_create(&ours);
    void *client = ubi_tls_create(&theirs);
    CHECK(server != NULL && client != NULL);
    world->client_session = ubi_tls_open(client, world->client[0]);
    world->server_session = ubi_tls_open(server, world->server[0]);
    CHECK(world->client_session != NULL && world->server_session != NULL);
    int32_t client_end = UBI_TLS_WANT_READ;
    int32_t server_end = UBI_TLS_WANT_READ;
    char bytes[4096];
    for (int turn = 0; turn < 20; turn++) {
        client_end = ubi_tls_handshake(world->client_session);
        int32_t moved = ubi_stream_read(world->client[1], bytes, sizeof(bytes));
        CHECK(moved <= 0 || ubi_stream_write(world->server[1], bytes, (uint32_t)moved) == moved);
        server_end = ubi_tls_handshake(world->server_session);
        moved = ubi_stream_read(world->server[1], bytes, sizeof(bytes));
        CHECK(moved <= 0 || ubi_stream_write(world->client[1], bytes, (uint32_t)moved) == moved);
    }
    int is_right = strcmp(identity, "me") == 0 && strcmp(secret, "0123456789abcdef") == 0;
    CHECK((client_end == UBI_TLS_READY) == is_right && (server_end == UBI_TLS_READY) == is_right);
    /* Sessions outlive the keys of their contexts. */
    ubi_tls_destroy(client);
    ubi_tls_destroy(server);
}

static void close_world(struct world *world) {
    ubi_tls_close(world->client_session);
    ubi_tls_close(world->server_session);
    for (int i = 0; i < 2; i++) {
        close(world->client[i]);
        close(world->server[i]);
    }
}

static void expect_problem(void *session, const char *text) {
    char problem[200] = "";
    int32_t length = ubi_tls_problem(session, problem, sizeof(problem) - 1);
    if (length < 0 || strstr(problem, text) == NULL) {
        fprintf(stderr, "expected %s, got %s\n", text, problem);
        exit(1);
    }
    CHECK(ubi_tls_problem(session, problem, 3) == 3);
}

static void test_key_bounds(void) {
    struct ubi_tls_key key = key_of(0, "me", "0123456789abcdef");
    key.identity_length = 0;
    CHECK(ubi_tls_create(&key) == NULL);
    key.identity_length = UBI_TLS_IDENTITY_MAX + 1;
    CHECK(ubi_tls_create(&key) == NULL);
    key.identity_length = 3; /* with the NUL */
    CHECK(ubi_tls_create(&key) == NULL);
    key = key_of(0, "me", "");
    CHECK(ubi_tls_create(&key) == NULL);
    key.secret_length = UBI_TLS_SECRET_MAX + 1;
    CHECK(ubi_tls_create(&key) == NULL);
    memset(key.identity, 'x', UBI_TLS_IDENTITY_MAX);
    memset(key.secret, 'y', UBI_TLS_SECRET_MAX);
    key.identity_length = UBI_TLS_IDENTITY_MAX;
    key.secret_length = UBI_TLS_SECRET_MAX;
    void *context = ubi_tls_create(&key);
    CHECK(context != NULL);
    ubi_tls_destroy(context);
}

static void relay(struct world *world) {
    uint8_t bytes[7000];
    int32_t moved = ubi_stream_read(world->server[1], bytes, sizeof(bytes));
    if (moved <= 0) {
        return;
    }
    if (world->flipped > world->relayed && world->flipped <= world->relayed + (uint64_t)moved) {
        bytes[world->flipped - world->relayed - 1] ^= 0x10;
    }
    world->relayed += (uint64_t)moved;
    for (int32_t done = 0; done < moved;) {
        int32_t passed = ubi_stream_write(world->client[1], bytes + done, (uint32_t)(moved - done));
        if (passed < 0) {
            return; /* the reader has given up */
        }
        done += passed;
    }
}

/* From the server to the client; what the client's last read returned. */
static int32_t transfer(struct world *world, uint32_t *got) {
    uint32_t put = 0;
    *got = 0;
    for (int turn = 0; turn < TURNS_MAX && *got < DATA; turn++) {
        if (put < DATA) {
            /* An odd length, and from a copy: after WANT_WRITE the bytes may lie elsewhere. */
            uint32_t length = DATA - put < 33333 ? DATA - put : 33333;
            uint8_t *copy = malloc(length);
            memcpy(copy, sent + put, length);
            int32_t moved = ubi_tls_write(world->server_session, copy, length);
            free(copy);
            CHECK(moved > 0 || moved == UBI_TLS_WANT_WRITE);
            put += moved > 0 ? (uint32_t)moved : 0;
        }
        relay(world);
        int32_t moved = ubi_tls_read(world->client_session, received + *got, DATA - *got);
        if (moved == 0 || (moved < 0 && moved != UBI_TLS_WANT_READ)) {
            return moved;
        }
        *got += moved > 0 ? (uint32_t)moved : 0;
    }
    return 1;
}

static void test_transfer(void) {
    struct world world;
    uint32_t got;
    open_world(&world, "me", "0123456789abcdef");
    CHECK(transfer(&world, &got) == 1 && got == DATA && memcmp(sent, received, DATA) == 0);
    CHECK(ubi_tls_handshake(world.client_session) == UBI_TLS_READY);
    /* The peer goes without a word: that is the end of the stream, again and again. */
    close(world.client[1]);
    world.client[1] = dup(0);
    CHECK(ubi_tls_read(world.client_session, received, 10) == 0);
    CHECK(ubi_tls_read(world.client_session, received, 10) == 0);
    CHECK(ubi_tls_write(world.client_session, sent, 10) <= 0);
    close_world(&world);
}

static void test_change_on_the_wire(void) {
    for (uint64_t flipped = 1; flipped < 200000; flipped = flipped * 3 + 1) {
        struct world world;
        uint32_t got;
        open_world(&world, "me", "0123456789abcdef");
        world.flipped = flipped;
        int32_t end = transfer(&world, &got);
        CHECK(end == UBI_TLS_FAILED && got < DATA && memcmp(sent, received, got) == 0);
        CHECK(ubi_tls_read(world.client_session, received, 10) == UBI_TLS_FAILED);
        /* What is no record fails as such, what is one fails by its tag. */
        expect_problem(world.client_session, flipped > 5 ? "decryption failed or bad record mac" : "");
        close_world(&world);
    }
}

static void test_wrong_keys(void) {
    struct world world;
    char identity[UBI_TLS_IDENTITY_MAX + 1] = "";
    open_world(&world, "me", "0123456789abcdeF");
    expect_problem(world.client_session, "bad record mac");
    expect_problem(world.server_session, "bad record mac");
    close_world(&world);
    for (int length = 1; length <= UBI_TLS_IDENTITY_MAX; length++) {
        identity[length - 1] = 'm';
        open_world(&world, identity, "0123456789abcdef");
        expect_problem(world.client_session, "unknown psk identity");
        expect_problem(world.server_session, "psk identity not found");
        close_world(&world);
    }
}

static void put_message(int fd, uint8_t type, const uint8_t *body, uint32_t length) {
    uint8_t bytes[1024] = {0x16, 3, 3, 0, 0, type, 0, 0, 0};
    CHECK(length + 9 <= sizeof(bytes));
    bytes[3] = (uint8_t)((length + 4) >> 8);
    bytes[4] = (uint8_t)(length + 4);
    bytes[7] = (uint8_t)(length >> 8);
    bytes[8] = (uint8_t)length;
    memcpy(bytes + 9, body, length);
    CHECK(ubi_stream_write(fd, bytes, length + 9) == (int32_t)length + 9);
}

/* What the server says to a client, made by hand, whose identity of `length` bytes says that it has `named_length`. */
static void expect_refusal(const char *identity, uint32_t length, uint32_t named_length, const char *problem) {
    int wire[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, wire) == 0);
    struct ubi_tls_key ours = key_of(1, "me", "0123456789abcdef");
    void *server = ubi_tls_create(&ours);
    void *session = ubi_tls_open(server, wire[0]);
    CHECK(session != NULL);
    uint8_t hello[43] = {3, 3, [35] = 0, 4, 0x00, 0xa9, 0x00, 0xff, 1, 0};
    put_message(wire[1], 1, hello, sizeof(hello));
    uint8_t exchange[600] = {(uint8_t)(named_length >> 8), (uint8_t)named_length};
    memcpy(exchange + 2, identity, length);
    put_message(wire[1], 16, exchange, length + 2);
    for (int turn = 0; turn < 5; turn++) {
        int32_t end = ubi_tls_handshake(session);
        CHECK(end == (problem == NULL ? UBI_TLS_WANT_READ : UBI_TLS_FAILED));
    }
    if (problem != NULL) {
        expect_problem(session, problem);
    }
    ubi_tls_close(session);
    ubi_tls_destroy(server);
    close(wire[0]);
    close(wire[1]);
}

static void test_identity_with_nul(void) {
    expect_refusal("me", 2, 2, NULL); /* only the proof is missing */
    expect_refusal("me\0", 3, 3, "psk identity not found");
    expect_refusal("me\0me", 5, 5, "psk identity not found");
    expect_refusal("m\0", 2, 2, "psk identity not found");
    expect_refusal("\0me", 3, 3, "psk identity not found");
    expect_refusal("", 0, 0, "psk identity not found");
    expect_refusal("me\0", 3, 2, "length mismatch");
    expect_refusal("me", 2, 3, "length mismatch");
}

int main(int count, char **words) {
    CHECK(count == 2);
    for (int i = 0; i < DATA; i++) {
        sent[i] = (uint8_t)(i * 7 + i / 251);
    }
    test_addresses("127.0.0.1");
    if (access("/proc/net/if_inet6", F_OK) == 0 && ubi_stream_listen("::1", 0, 1) >= 0) {
        test_addresses("::1");
    }
    test_paths(words[1]);
    CHECK(ubi_ssl_start() == 0);
    test_key_bounds();
    test_transfer();
    test_change_on_the_wire();
    test_wrong_keys();
    test_identity_with_nul();
    puts("all as expected");
    return 0;
}
