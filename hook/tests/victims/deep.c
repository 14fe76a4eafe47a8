/* Loads plug in the way argv[1] and runs it: whatever way that is, its functions are to be the preloaded library's. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Found by the path that this program carries, not by a path in its name: the loader looks at who calls dlopen. */
static void *load(const char *way) {
    if (strcmp(way, "deep") == 0)
        return dlopen("plug", RTLD_NOW | RTLD_DEEPBIND);
    if (strcmp(way, "deep-lazy") == 0)
        return dlopen("plug", RTLD_LAZY | RTLD_GLOBAL | RTLD_DEEPBIND);
    if (strcmp(way, "new") == 0)
        return dlmopen(LM_ID_NEWLM, "plug", RTLD_NOW);
    if (strcmp(way, "new-deep") == 0)
        return dlmopen(LM_ID_NEWLM, "plug", RTLD_NOW | RTLD_DEEPBIND);
    if (strcmp(way, "base-deep") == 0)
        return dlmopen(LM_ID_BASE, "plug", RTLD_NOW | RTLD_DEEPBIND);
    return dlopen("plug", RTLD_NOW);
}

int main(int count, char **words) {
    void *plug = count == 2 ? load(words[1]) : NULL;
    int (*go)(void) = plug ? (int (*)(void))dlsym(plug, "go") : NULL;
    if (!go) {
        puts(dlerror());
        return 1;
    }
    return go();
}
