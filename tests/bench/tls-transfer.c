/*
 * The speed of TLS itself: messages of 1 MiB over loopback TCP, with the cipher suite of remote stripes, from a
 * sending process to a receiving one, a thread a connection, on OpenSSL. The receiver asks with nine bytes for
 * each message, one at a time and connection, and does nothing with what arrives.
 *
 *   tls-transfer CONNECTIONS MESSAGES     prints {"mibPerSecond": N}
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 1 << 20, REQUEST_BYTES = 9, CONNECTIONS_MAX = 64 };

static const unsigned char PSK[32] = {1, 2, 3, 4};
static atomic_int left;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static unsigned client_psk(SSL *ssl, const char *hint, char *identity, unsigned identity_max,
                           unsigned char *psk, unsigned psk_max) {
    (void)ssl, (void)hint, (void)psk_max;
    snprintf(identity, identity_max, "bench");
    memcpy(psk, PSK, sizeof PSK);
    return sizeof PSK;
}

static unsigned server_psk(SSL *ssl, const char *identity, unsigned char *psk, unsigned psk_max) {
    (void)ssl, (void)identity, (void)psk_max;
    memcpy(psk, PSK, sizeof PSK);
    return sizeof PSK;
}

static SSL *session(int fd, bool is_server) {
    SSL_CTX *context = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(context, "PSK-AES256-GCM-SHA384");
    SSL_CTX_set_psk_client_callback(context, client_psk);
    SSL_CTX_set_psk_server_callback(context, server_psk);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if ((is_server ? SSL_accept(ssl) : SSL_connect(ssl)) != 1) {
        fail("handshake");
    }
    return ssl;
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* False at the end of the stream. */
static bool read_all(SSL *ssl, unsigned char *target, int length) {
    for (int done = 0; done < length;) {
        int count = SSL_read(ssl, target + done, length - done);
        if (count <= 0) {
            return false;
        }
        done += count;
    }
    return true;
}

static unsigned char *message(void) {
    unsigned char *bytes = malloc(MESSAGE_BYTES);
    memset(bytes, 0x5a, MESSAGE_BYTES);
    return bytes;
}

static void *send_messages(void *argument) {
    int fd = (int)(long)argument;
    SSL *ssl = session(fd, true);
    unsigned char *bytes = message();
    unsigned char request[REQUEST_BYTES];
    while (read_all(ssl, request, REQUEST_BYTES)) {
        if (SSL_write(ssl, bytes, MESSAGE_BYTES) != MESSAGE_BYTES) {
            fail("send");
        }
    }
    return NULL;
}

static void *receive_messages(void *argument) {
    SSL *ssl = argument;
    unsigned char *bytes = message();
    const unsigned char request[REQUEST_BYTES] = {1};
    while (atomic_fetch_sub(&left, 1) > 0) {
        if (SSL_write(ssl, request, REQUEST_BYTES) != REQUEST_BYTES ||
            !read_all(ssl, bytes, MESSAGE_BYTES)) {
            fail("receive");
        }
    }
    return NULL;
}

static void serve(int listener, int connections) {
    pthread_t threads[CONNECTIONS_MAX];
    for (int i = 0; i < connections; i++) {
        int fd = accept(listener, NULL, NULL);
        no_delay(fd);
        pthread_create(&threads[i], NULL, send_messages, (void *)(long)fd);
    }
    for (int i = 0; i < connections; i++) {
        pthread_join(threads[i], NULL);
    }
    _exit(0);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    int connections = argc > 2 ? atoi(argv[1]) : 0;
    int messages = argc > 2 ? atoi(argv[2]) : 0;
    if (connections < 1 || connections > CONNECTIONS_MAX || messages < 1) {
        fprintf(stderr, "usage: tls-transfer CONNECTIONS MESSAGES\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, CONNECTIONS_MAX) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        fail("listen");
    }
    pid_t sender = fork();
    if (sender == 0) {
        serve(listener, connections);
    }
    SSL *sessions[CONNECTIONS_MAX];
    pthread_t threads[CONNECTIONS_MAX];
    for (int i = 0; i < connections; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
            fail("connect");
        }
        no_delay(fd);
        sessions[i] = session(fd, false);
    }
    atomic_store(&left, messages);
    double begin = now();
    for (int i = 0; i < connections; i++) {
        pthread_create(&threads[i], NULL, receive_messages, sessions[i]);
    }
    for (int i = 0; i < connections; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("{\"mibPerSecond\": %.1f}\n", messages / (now() - begin));
    for (int i = 0; i < connections; i++) {
        close(SSL_get_fd(sessions[i]));
    }
    waitpid(sender, NULL, 0);
    return 0;
}
