#include "escape.h"

#include <stdio.h>
#include <string.h>

char escape_detail[256];

static const struct escape *const tables[] = {escapes_files, escapes_kernel, escapes_process, escapes_network};

static const struct escape *find(const char *name)
{
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        for (const struct escape *e = tables[t]; e->name; e++) {
            if (strcmp(e->name, name) == 0)
                return e;
        }
    }
    return NULL;
}

int escape_run(const char *name, const char *argument, char *text, size_t size)
{
    static const char *const words[] = {[HELD] = "held", [ESCAPED] = "escaped", [NOTHING] = "nothing"};
    const struct escape *e = find(name);
    if (!e)
        return -1;
    escape_detail[0] = '\0';
    errno = 0;
    enum verdict verdict = e->run(argument);
    int code = errno;
    (void)snprintf(text, size, "%s %s %s", words[verdict], code ? strerrorname_np(code) : "-", escape_detail);
    return 0;
}
