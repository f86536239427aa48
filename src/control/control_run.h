/* The control role's process, for main.c. */
#ifndef BULKHEAD_CONTROL_RUN_H
#define BULKHEAD_CONTROL_RUN_H

int control_run(int bus_fd);

#endif
