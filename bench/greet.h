/*
 * A connection that says CONNECT and nothing more: for what needs no files.
 */
#ifndef SLUICE_BENCH_GREET_H
#define SLUICE_BENCH_GREET_H

#include <netinet/in.h>
#include <stdint.h>

#include "options.h"

/* The address of the server. 0, or −errno after a message on stderr. */
int greet_resolve(const struct options *o, struct sockaddr_in *ret);
/* Connects, from 127.1.0.1 + idx when the server is on loopback, and sends CONNECT with the client
 * id PREFIX-idx. Does not wait for the answer. The socket, or −errno. */
int greet_start(const struct options *o, const struct sockaddr_in *addr, uint32_t idx,
	uint16_t keep_alive_s);
/* Waits for CONNACK, at most the options' timeout. 0; −ECONNREFUSED when it says no; −errno. */
int greet_finish(const struct options *o, int fd);

#endif
