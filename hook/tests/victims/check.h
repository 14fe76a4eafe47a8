/* One line per expectation that is not met; the program's status says whether all were. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define EXPECT(condition)                                                                                               \
    do {                                                                                                                \
        if (!(condition)) {                                                                                             \
            failures++;                                                                                                 \
            printf("%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                            \
        }                                                                                                               \
    } while (0)

/* The call fails, with this errno. */
#define FAILS(call, error)                                                                                              \
    do {                                                                                                                \
        errno = 0;                                                                                                      \
        long result = (long)(call);                                                                                     \
        int was = errno;                                                                                                \
        if (result != -1 || was != (error)) {                                                                           \
            failures++;                                                                                                 \
            printf("%s:%d: %s gives %ld, errno %d instead of %d\n", __FILE__, __LINE__, #call, result, was, (error));   \
        }                                                                                                               \
    } while (0)
