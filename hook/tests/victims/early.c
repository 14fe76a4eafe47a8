/* A library whose constructor comes before that of a preloaded one, and loads something. */
#include <dlfcn.h>
#include <stdlib.h>

__attribute__((constructor)) static void early(void) {
    if (!dlopen("libm.so.6", RTLD_NOW | RTLD_DEEPBIND) || !dlmopen(LM_ID_NEWLM, "libm.so.6", RTLD_NOW))
        abort();
}
