/* bulkhead: wiring only. The command line, and the processes that `bulkhead serve` is made of. */
#include "api/serve/oip.h"
#include "api/serve/openai.h"
#include "base/log.h"
#include "bus/message.h"
#include "cli/cli.h"
#include "control/control_run.h"
#include "gateway/gateway.h"
#include "role/role.h"
#include "serve.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

static const struct role role_control = {
    .name = "control", .bus = BUS_CONTROL, .uid_offset = 0, .fds_max = 1024, .run = control_run};

/* One descriptor a connection, four a replica, and some. */
static const struct role role_gateway = {
    .name = "gateway", .bus = BUS_GATEWAY, .uid_offset = 1, .fds_max = 65536, .run = gateway_run};

const struct role *const role_table[] = {&role_control, &role_gateway, NULL};

const struct gateway_surface *const gateway_surfaces[] = {&serve_oip_surface, &serve_openai_surface, NULL};

/* LeakSanitizer's hook (only called in sanitizer builds): it cannot look into a locked-down process. */
static int leaks_unchecked;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return leaks_unchecked;
}

/* `bulkhead role NAME`: started by the supervisor only, with its socket as descriptor 3. */
static int role_main(const char *name)
{
    const struct role *role = role_find(name);
    if (!role) {
        (void)fprintf(stderr, "bulkhead: there is no role \"%s\"\n", name);
        return 2;
    }
    leaks_unchecked = 1;
    (void)prctl(PR_SET_NAME, role->name); /* executed by descriptor: the kernel's own name for it would be a number */
    log_setup(role->name, LOG_LEVEL_INFO);
    return role->run(ROLE_BUS_FD);
}

int main(int argc, char **argv)
{
    static const struct cli_hooks hooks = {.serve = serve_main};
    if (argc == 3 && strcmp(argv[1], "role") == 0)
        return role_main(argv[2]);
    return cli_main(&hooks, argc, argv);
}
