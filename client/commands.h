/* The commands of sluice: each parses its own argv and returns the exit status. */
#ifndef CLIENT_COMMANDS_H
#define CLIENT_COMMANDS_H

int send_main(int argc, char **argv);
int status_main(int argc, char **argv);
int abort_main(int argc, char **argv);

#endif
