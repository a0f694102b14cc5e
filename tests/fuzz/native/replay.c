/*
 * Runs a fuzz target without a fuzzer: each line of a corpus, then changes of those lines that a seed makes.
 *
 *   target CORPUS SEED RUNS      CORPUS: one input a line, in hexadecimal
 *   target - < FILE              one input, as it is
 *
 * Before each run that is made up, its number is written to a shared place, so that the one that ends the process is
 * told by its parent; the same SEED makes the same runs.
 */
#include "fuzz.h"

#define INPUT_MAX 4096
#define CASES_MAX 4096

struct one {
    size_t size;
    uint8_t *data;
};

static struct one cases[CASES_MAX];
static size_t case_count;
static long current;

static int hex_digit(int c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void read_corpus(const char *path) {
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    uint8_t data[INPUT_MAX];
    size_t size = 0;
    for (;;) {
        int high = fgetc(file);
        if (high == '\n' || high == EOF) {
            if (size > 0 && case_count < CASES_MAX) {
                cases[case_count].data = malloc(size);
                memcpy(cases[case_count].data, data, size);
                cases[case_count].size = size;
                case_count += 1;
            }
            size = 0;
            if (high == EOF) {
                break;
            }
            continue;
        }
        int low = fgetc(file);
        CHECK(hex_digit(high) >= 0 && hex_digit(low) >= 0 && size < INPUT_MAX);
        data[size++] = (uint8_t)(hex_digit(high) << 4 | hex_digit(low));
    }
    fclose(file);
}

/* A case of the corpus with some of its bytes changed, or bytes at random. */
static size_t make_up(uint8_t *data, uint64_t *state) {
    size_t size = 1 + spread(state) % 256;
    fill_bytes(data, INPUT_MAX, spread(state));
    if (case_count > 0 && spread(state) % 4 != 0) {
        const struct one *chosen = &cases[spread(state) % case_count];
        size = chosen->size;
        memcpy(data, chosen->data, size);
        size_t changes = 1 + spread(state) % 8;
        for (size_t i = 0; i < changes; i++) {
            data[spread(state) % size] = (uint8_t)spread(state);
        }
        size_t longer = size + spread(state) % 64; /* what lies behind it is random */
        size = longer > INPUT_MAX ? INPUT_MAX : longer;
    }
    return size;
}

/* Exactly as long as its content, so that the address sanitizer sees a step beyond. */
static void run(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void tell_run(void) { fprintf(stderr, "run %ld\n", current); }

void __sanitizer_set_death_callback(void (*callback)(void));

int main(int argc, char **argv) {
    static uint8_t data[INPUT_MAX];
    if (argc == 2 && strcmp(argv[1], "-") == 0) {
        run(data, fread(data, 1, sizeof(data), stdin));
        puts("0 cases, 1 run");
        return 0;
    }
    CHECK(argc == 4);
    __sanitizer_set_death_callback(tell_run);
    read_corpus(argv[1]);
    uint64_t state = strtoull(argv[2], NULL, 10);
    long runs = strtol(argv[3], NULL, 10);
    for (size_t i = 0; i < case_count; i++) {
        current = -1 - (long)i;
        run(cases[i].data, cases[i].size);
    }
    for (current = 0; current < runs; current++) {
        size_t size = make_up(data, &state);
        run(data, size);
    }
    printf("%zu cases, %ld runs\n", case_count, runs);
    return 0;
}
