/* `bulkhead serve`: arguments and configuration file into what the supervisor needs. Wiring, beside main.c. */
#ifndef BULKHEAD_SERVE_H
#define BULKHEAD_SERVE_H

/* argv[0] is "serve". Returns the exit status: 0 after a drain, 1 refused or failed, 2 usage. */
int serve_main(int argc, char **argv);

#endif
