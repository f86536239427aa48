/* The worker role (`bulkhead-worker`): one replica of one model, one engine, behind a wall.
 *
 * One thread for each model: it takes a lease from the channel, runs the engine on it, writes the outputs, rings. (A
 * tensor engine cannot stop in the middle; a channel thread of its own comes with the engines that can.) It trusts its
 * gateway's frames but is itself trusted by nobody. It ends when told (UNLOAD), when its supervisor's socket closes, or
 * by SIGKILL. At level shared it hosts models of several tenants, each in a thread of its own (host.c). */
#ifndef BULKHEAD_WORKER_WORKER_H
#define BULKHEAD_WORKER_WORKER_H

/* Runs until the end; returns the exit status: 0 told to end, 1 failure (logged). bus_fd: conversation with the
 * supervisor. */
int worker_run(int bus_fd);

/* The ingest role, the same program as a one-shot: opens the one model that its supervisor hands it, answers with its
 * signature or with the engine's reason why not, and waits for its end. Behind the same wall, and trusted as little.
 * Exit status as above. */
int ingest_run(int bus_fd);
#define INGEST_ARGUMENT "ingest" /* argv[1] of such a process */

#endif
