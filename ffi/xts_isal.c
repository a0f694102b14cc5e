/*
 * AES-256-XTS by libisal_crypto, found at run time. The main thread loads it once, before any context is
 * made; it stays loaded for life. Its functions are called by any thread.
 *
 * Traps of that library: the tweak key comes before the data key; an exchanged or wrong schedule is
 * silent garbage; it does not check that the CPU has AES-NI; versions before 2.25 have only the old
 * names, which return nothing.
 */
#define _GNU_SOURCE
#include "xts_kernel.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SONAME "libisal_crypto.so.2"

typedef int expand_function(const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt);
typedef int cipher_function(const uint8_t *tweak_key, const uint8_t *data_key, const uint8_t *tweak,
                            uint64_t length, const void *input, void *output);
typedef void old_expand_function(const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt);
typedef void old_cipher_function(const uint8_t *tweak_key, const uint8_t *data_key, const uint8_t *tweak,
                                 uint64_t length, const void *input, void *output);

/* Either the functions that return a code, or the old ones. */
static struct {
    int is_loaded;
    expand_function *expand;
    cipher_function *encrypt;
    cipher_function *decrypt;
    old_expand_function *old_expand;
    old_cipher_function *old_encrypt;
    old_cipher_function *old_decrypt;
} library;

static int has_aes(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes");
}

static int32_t probe(void) {
    if (!has_aes()) {
        return -ENOTSUP;
    }
    return library.is_loaded ? 0 : -ENOENT;
}

/* An empty or relative element of the loader's search path stands for the current directory. */
static int is_search_path_absolute(void) {
    const char *path = secure_getenv("LD_LIBRARY_PATH");
    if (path == NULL || path[0] == '\0') {
        return 1;
    }
    for (;;) {
        if (path[0] != '/') {
            return 0;
        }
        path += strcspn(path, ":;");
        if (path[0] == '\0') {
            return 1;
        }
        path++;
    }
}

/* A regular file of root or of this user that nobody else may write. The descriptor stays open for life,
 * so that what was checked is what is loaded, and its name is never that of another library. */
static int32_t open_checked(const char *path) {
    if (path[0] != '/') {
        return -EINVAL;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    struct stat info;
    int is_ours = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
                  (info.st_uid == 0 || info.st_uid == geteuid());
    if (!is_ours) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

static void *open_library(const char *path, int32_t *error) {
    if (path == NULL || path[0] == '\0') {
        *error = is_search_path_absolute() ? -ENOENT : -EPERM;
        return *error == -EPERM ? NULL : dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
    }
    int fd = open_checked(path);
    if (fd < 0) {
        *error = fd;
        return NULL;
    }
    char name[32];
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        close(fd);
        *error = -ENOEXEC;
    }
    return handle;
}

static int32_t find_functions(void *handle) {
    /* SAFETY: the types are those of the library's documented functions of these names. */
    library.expand = (expand_function *)dlsym(handle, "isal_aes_keyexp_256");
    library.encrypt = (cipher_function *)dlsym(handle, "isal_aes_xts_enc_256_expanded_key");
    library.decrypt = (cipher_function *)dlsym(handle, "isal_aes_xts_dec_256_expanded_key");
    if (library.expand != NULL && library.encrypt != NULL && library.decrypt != NULL) {
        return 0;
    }
    library.expand = NULL;
    library.old_expand = (old_expand_function *)dlsym(handle, "aes_keyexp_256");
    library.old_encrypt = (old_cipher_function *)dlsym(handle, "XTS_AES_256_enc_expanded_key");
    library.old_decrypt = (old_cipher_function *)dlsym(handle, "XTS_AES_256_dec_expanded_key");
    int has_old = library.old_expand != NULL && library.old_encrypt != NULL && library.old_decrypt != NULL;
    return has_old ? 0 : -ENOSYS;
}

int32_t ubi_xts_isal_load(const char *path) {
    if (library.is_loaded) {
        return 0;
    }
    if (!has_aes()) {
        return -ENOTSUP;
    }
    int32_t result = 0;
    void *handle = open_library(path, &result);
    if (handle == NULL) {
        return result;
    }
    result = find_functions(handle);
    if (result < 0) {
        dlclose(handle);
        return result;
    }
    library.is_loaded = 1;
    return 0;
}

static int32_t expand_half(const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt) {
    if (library.expand != NULL) {
        return library.expand(key, encrypt, decrypt) == 0 ? 0 : -EIO;
    }
    library.old_expand(key, encrypt, decrypt);
    return 0;
}

static int32_t expand(struct xts_context *context, const uint8_t *key) {
    _Alignas(64) uint8_t unused[256]; /* the library insists on writing both schedules */
    int32_t result = expand_half(key, context->data_encrypt, context->data_decrypt);
    if (result == 0) {
        result = expand_half(key + 32, context->tweak_encrypt, unused);
    }
    explicit_bzero(unused, sizeof(unused));
    return result;
}

static int32_t run(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                   const uint8_t *source, uint8_t *target, int is_decrypt) {
    cipher_function *cipher = is_decrypt ? library.decrypt : library.encrypt;
    old_cipher_function *old_cipher = is_decrypt ? library.old_decrypt : library.old_encrypt;
    const uint8_t *data_key = is_decrypt ? context->data_decrypt : context->data_encrypt;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t tweak[2] = {low, high + i};
        const uint8_t *bytes = (const uint8_t *)tweak;
        size_t offset = (size_t)i * UBI_XTS_SECTOR_SIZE;
        if (library.expand == NULL) {
            old_cipher(context->tweak_encrypt, data_key, bytes, UBI_XTS_SECTOR_SIZE, source + offset,
                       target + offset);
        } else if (cipher(context->tweak_encrypt, data_key, bytes, UBI_XTS_SECTOR_SIZE, source + offset,
                          target + offset) != 0) {
            return -EIO;
        }
    }
    return 0;
}

static int32_t encrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                       const uint8_t *source, uint8_t *target) {
    return run(context, low, high, count, source, target, 0);
}

static int32_t decrypt(const struct xts_context *context, uint64_t low, uint64_t high, uint32_t count,
                       const uint8_t *source, uint8_t *target) {
    return run(context, low, high, count, source, target, 1);
}

const struct xts_kernel xts_kernel_isal = {
    .probe = probe, .expand = expand, .encrypt = encrypt, .decrypt = decrypt};
