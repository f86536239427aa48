/* bulkhead-guest, and bulkhead-guest-oci (GUEST_WALL isolate_container): wiring only. Process 1 of a virtual machine.
 */
#include "base/log.h"
#include "guest/guest.h"
#include "isolate/isolate.h"

#include <stdio.h>
#include <unistd.h>

int main(void)
{
    if (getpid() != 1) {
        (void)fputs("bulkhead-guest: runs as the first process of a virtual machine only\n", stderr);
        return 2;
    }
    log_setup("guest", LOG_LEVEL_INFO);
    guest_run(&GUEST_WALL);
}
