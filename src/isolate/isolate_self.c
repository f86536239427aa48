#include "isolate/isolate_self.h"

#include "isolate/isolate_landlock.h"

#include <signal.h>
#include <sys/prctl.h>

int isolate_lockdown_self(struct error *err)
{
    if (prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker could not become undumpable: %m.");
    if (prctl(PR_GET_NO_NEW_PRIVS, 0L, 0L, 0L, 0L) != 1)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker was started without no_new_privs.");
    int death_signal = 0;
    if (prctl(PR_GET_PDEATHSIG, &death_signal, 0L, 0L, 0L) != 0 || death_signal != SIGKILL)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker was started without a parent-death signal.");
    return isolate_landlock_apply(err);
}
