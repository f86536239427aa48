/* The command line: every command of `bulkhead`, its flags and its help.
 *
 * Lives in the process the user started, single-threaded, blocking. It talks to the admin socket and to nothing else;
 * `serve` is handed back to main.c through a hook, everything but its help. Exit statuses: 0 done, 1 refused or failed,
 * 2 usage. Results go to stdout, complaints to stderr. */
#ifndef BULKHEAD_CLI_CLI_H
#define BULKHEAD_CLI_CLI_H

struct cli_hooks {
    /* Runs the server. argv[0] is "serve", then its flags, unparsed; `serve --help` never gets here. Returns an exit
     * status. */
    int (*serve)(int argc, char **argv);
};

/* main()'s arguments as they are. Returns the exit status. */
int cli_main(const struct cli_hooks *hooks, int argc, char **argv);

#endif
